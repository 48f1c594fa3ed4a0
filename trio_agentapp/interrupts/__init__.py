"""Interrupt backends: who may run for a session, and how a stop reaches its run."""

from .local import LocalInterruptBackend

__all__ = ["LocalInterruptBackend"]
