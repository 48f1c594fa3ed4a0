"""Interrupt backends: they keep leases and stop requests, in one process or in Redis."""

from .local import LocalInterruptBackend

__all__ = ["LocalInterruptBackend"]
