"""The cancel scope around user code, with the reason for which it was cancelled.

Runs and tasks both use it. It connects a `trio.CancelScope`, which cancels at once or at a deadline, to a
`RunLifecycle`, which decides which reason counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from ..protocol.lifecycle import Cause, RunLifecycle

__all__ = ["StopFlag", "StoppableScope"]


class StopFlag:
    """Whether the run is being stopped. `is_set()` may be called from any thread."""

    __slots__ = ("_cancel_scope", "_event", "_is_set")

    def __init__(self, cancel_scope: trio.CancelScope) -> None:
        self._cancel_scope = cancel_scope
        self._is_set = False
        self._event: trio.Event | None = None
        """Made when a task first waits, since few flags are waited for."""

    def is_set(self) -> bool:
        if self._is_set:
            return True
        # Trio itself cancels a scope at its deadline, and does not set the flag.
        return trio.lowlevel.in_trio_task() and self._cancel_scope.cancel_called

    def __bool__(self) -> bool:
        return self.is_set()

    def set(self) -> None:
        self._is_set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait for the flag. A run that is stopped while it waits here gets `Cancelled`, as at every await."""
        if self._event is None:
            self._event = trio.Event()
            if self._is_set:
                self._event.set()
        await self._event.wait()


class StoppableScope:
    """Stops what runs inside `cancel_scope`, and reports each stop to the lifecycle.

    Args:
        name: the run or task, as named in the reason of the cancellation.
        deadline: the time limit of the run itself, on Trio's clock.

    Attributes:
        ends_at: when Trio itself cancels the scope: at the deadline or at the end of the lease, whichever is
            earlier.
        on_stop: called at each stop, and when an expired deadline is noticed.
    """

    __slots__ = ("_lease_ends_at", "cancel_scope", "deadline", "ends_at", "lifecycle", "name", "on_stop")

    def __init__(self, lifecycle: RunLifecycle, name: str, *, deadline: float = math.inf) -> None:
        self.lifecycle = lifecycle
        self.name = name
        self.deadline = self.ends_at = deadline
        self.cancel_scope = trio.CancelScope(deadline=deadline)
        self.on_stop: Callable[[], object] | None = None
        self._lease_ends_at = math.inf

    def stop(self, cause: Cause) -> bool:
        """Cancel the scope. Returns True if a stop ends the run, and False if its handler had ended before."""
        self.note_deadline()
        now = trio.current_time()
        if cause is Cause.LEASE_LOST:
            in_time = self.lifecycle.lease_lost(at=now)
        else:
            in_time = self.lifecycle.stop_requested(cause, at=now)
        if in_time:
            self._cancel()
        return in_time

    def note_deadline(self) -> None:
        """Report a stop that Trio made by itself, because the run's deadline or its lease has expired."""
        if self.lifecycle.cause is None and self.cancel_scope.cancel_called:
            at = min(trio.current_time(), self.ends_at)
            if self.deadline <= self._lease_ends_at:
                self.lifecycle.deadline(at=at)
            else:
                self.lifecycle.lease_lost(at=at)
            self._cancel()

    def stopped_at(self) -> float | None:
        """When the run was first stopped; None if it was not."""
        self.note_deadline()
        return self.lifecycle.stopped_at

    def set_deadline(self, deadline: float) -> None:
        """Set the time limit, before the scope is entered."""
        self.cancel_scope.deadline = self.deadline = self.ends_at = deadline

    def renew(self, lease_ends_at: float) -> None:
        """Move the end of the lease to `lease_ends_at`, on Trio's clock."""
        self.note_deadline()
        self._lease_ends_at = lease_ends_at
        self.cancel_scope.deadline = self.ends_at = min(self.deadline, lease_ends_at)

    def body_ended(self, *, raised: bool = False, rejected: bool = False) -> None:
        """Report that the handler has returned, raised, or rejected its request. A later stop has no effect."""
        self.note_deadline()
        if raised or rejected:
            self.lifecycle.raised(at=trio.current_time(), rejected=rejected)
        else:
            self.lifecycle.returned(at=trio.current_time())

    def _cancel(self) -> None:
        if self.on_stop is not None:
            self.on_stop()
        assert self.lifecycle.cause is not None  # noqa: S101  a stop has just been reported
        self.cancel_scope.cancel(reason=f"{self.name}: {self.lifecycle.cause.value}")
