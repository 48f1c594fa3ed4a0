"""Shielded, time-limited scopes for the cleanup of a run or task.

A stop reaches the handler as Trio's level cancellation: every unshielded await raises `Cancelled` until the handler
has unwound. Code that has to await after a stop does so in a scope of this module. All scopes of a run share one
deadline, the cleanup deadline.
"""

from __future__ import annotations

import logging
import math
import traceback
from types import TracebackType

import trio

from ..protocol.exception_groups import leaves
from ..protocol.lifecycle import CleanupResult
from .stoppable import StoppableScope

__all__ = ["Cleanup", "CleanupScope"]

logger = logging.getLogger("trio_agentapp.runs")


class Cleanup:
    """The cleanup budget of one run or task, and whether the cleanup has stayed within it.

    Args:
        budget: seconds, counted from the first stop, or from the end of the handler if it was not stopped. A scope
            that is opened before both gets the whole budget, counted from when it was opened.
        stoppable: the scope of the handler; None outside of runs, where nothing is stopped.

    Attributes:
        limit: when all cleanup must have ended because the lease expires, on Trio's clock. Each renewal moves it.
        timed_out: a scope was cancelled at its deadline.
        interrupted: a stop has cancelled an unshielded await in the handler's cleanup.
    """

    __slots__ = ("_begun", "_open", "_stoppable", "budget", "interrupted", "limit", "timed_out")

    def __init__(self, budget: float, stoppable: StoppableScope | None = None) -> None:
        self.budget = budget
        self.limit = math.inf
        self.timed_out = False
        self.interrupted = False
        self._stoppable = stoppable
        self._begun = False
        self._open: list[CleanupScope] = []

    def until(self, start: float) -> float:
        """Return the deadline of a cleanup that began at `start`, on Trio's clock."""
        return min(start + self.budget, self.limit)

    def extend(self, limit: float) -> None:
        """The lease was renewed: cleanup may last until `limit`."""
        self.limit = limit
        for scope in self._open:
            scope.move()

    def open(self, *, strict: bool = False) -> CleanupScope:
        """Return a cleanup scope. If `strict`, leaving it raises TooSlowError when it was cut at its deadline."""
        return CleanupScope(self, strict=strict)

    @property
    def result(self) -> CleanupResult:
        if self.timed_out:
            return CleanupResult.TIMED_OUT
        return CleanupResult.DONE if self._begun else CleanupResult.NONE

    def begin(self, scope: CleanupScope) -> None:
        self._open.append(scope)

    def end(self, scope: CleanupScope, *, cut: bool) -> None:
        self._open.remove(scope)
        # A scope that ended before any stop was ordinary work, not cleanup.
        self._begun = self._begun or (self._stoppable is not None and self._stoppable.stopped_at() is not None)
        self.timed_out = self.timed_out or cut

    def began_at(self) -> float | None:
        """Return when the budget began to count, on Trio's clock; None before a stop and the handler's end."""
        if self._stoppable is None:
            return None
        stopped_at = self._stoppable.stopped_at()
        return self._stoppable.lifecycle.body_ended_at if stopped_at is None else stopped_at

    def deadline(self) -> float:
        """Return the deadline of a scope that is opened now, on Trio's clock."""
        return self.until(self.start())

    def start(self) -> float:
        began_at = self.began_at()
        return trio.current_time() if began_at is None else began_at

    def inspect(self, error: BaseException, handler: str, warned: set[str]) -> None:
        """Warn, once for each handler, of an await in its cleanup that was cancelled by the stop.

        Such an await raises a `Cancelled` while another `Cancelled` is being handled. Most cases are found, not
        all.
        """
        for leaf in leaves(error):
            if not isinstance(leaf, trio.Cancelled) or not isinstance(leaf.__context__, trio.Cancelled):
                continue
            if not _share_a_frame(leaf, leaf.__context__) or _raised_by_closing(leaf):
                continue
            self.interrupted = True
            if handler not in warned:
                warned.add(handler)
                logger.warning(
                    "handler %r: an await in its cleanup was cut by the stop, at %s; put it into "
                    "`async with run.cleanup():` or register it with `run.on_exit(...)`",
                    handler,
                    _place_of(leaf),
                )


class CleanupScope:
    """`async with run.cleanup():` opens a shielded scope that ends at the cleanup deadline.

    A scope that is entered after a stop has the rest of the budget. A scope that is entered before has the whole
    budget, also if a stop comes while it is open. At the deadline the block is cancelled at its next await, and the
    run ends in the state ERROR with the reason `cleanup_timeout`.
    """

    __slots__ = ("_cleanup", "_scope", "_start", "_strict")

    def __init__(self, cleanup: Cleanup, *, strict: bool = False) -> None:
        self._cleanup = cleanup
        self._strict = strict
        self._start = 0.0
        self._scope = trio.CancelScope(shield=True)

    def move(self) -> None:
        self._scope.deadline = self._cleanup.until(self._start)

    async def __aenter__(self) -> CleanupScope:
        self._start = self._cleanup.start()
        self.move()
        self._cleanup.begin(self)
        self._scope.__enter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> bool:
        try:
            # It raises if the Cancelled was in a group with something else.
            suppressed = self._scope.__exit__(exc_type, exc_value, exc_traceback)
        finally:
            # The block may turn the Cancelled of the deadline into another exception.
            cut = self._scope.cancelled_caught or (exc_value is not None and self._scope.cancel_called)
            self._cleanup.end(self, cut=cut)
        if self._strict and self._scope.cancelled_caught:
            raise trio.TooSlowError
        return suppressed


def _share_a_frame(error: BaseException, context: BaseException) -> bool:
    """Return whether both exceptions passed through the same function call.

    Trio creates a Cancelled in the code that cancels the scope. If that code is itself handling another Cancelled,
    as when a request is closed, that one becomes the context, although this task never raised it.
    """
    frames = {frame for frame, _ in traceback.walk_tb(context.__traceback__)}
    return any(frame in frames for frame, _ in traceback.walk_tb(error.__traceback__))


def _raised_by_closing(error: BaseException) -> bool:
    """Return whether Trio's own `aclose` raised it, as at the end of `async with channel`.

    It closes also when it is cancelled, so no warning is needed.
    """
    return any(
        frame.f_code.co_name == "aclose" and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "trio"
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _place_of(error: BaseException) -> str:
    """Return file and line of the user's await: the innermost frame that does not belong to a library."""
    place = "an unknown line"
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in ("trio", "outcome", "contextlib", "trio_agentapp"):
            place = f"{frame.f_code.co_filename}:{line}"
    return place
