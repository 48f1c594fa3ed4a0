"""Interrupt backends: they carry leases and stop requests, in one process or over Redis."""

from .local import LocalInterruptBackend

__all__ = ["LocalInterruptBackend"]
