"""State stores: where a handler keeps what the next turn needs."""

from .memory import MemoryStateStore

__all__ = ["MemoryStateStore"]
