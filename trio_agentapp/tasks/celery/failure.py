"""What a worker raises so that Celery counts a task as failed."""

from __future__ import annotations

__all__ = ["TaskFailed"]


class TaskFailed(Exception):
    """The task has failed, and its record and the log tell how."""
