"""Telemetry: what operators read."""

from .logging import JsonFormatter, configure_logging

__all__ = ["JsonFormatter", "configure_logging"]
