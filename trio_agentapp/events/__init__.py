"""Event stores: they keep the events of runs for readers that come later, or again."""

from .local import LocalEventStore

__all__ = ["LocalEventStore"]
