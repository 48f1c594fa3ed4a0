"""Event stores: where the events of runs are kept for readers that come, or come back, later."""

from .local import LocalEventStore

__all__ = ["LocalEventStore"]
