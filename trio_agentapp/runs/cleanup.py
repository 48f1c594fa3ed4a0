"""The cleanup of a run: shielded, so that it may await after a stop, and bounded, so that it ends.

A stop reaches the body as Trio's own level cancellation: every unshielded await raises `Cancelled` until the body
has unwound. What may await then does so in a scope of this module, all under one deadline.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable
from types import TracebackType

import trio

from ..protocol.lifecycle import CleanupResult
from .failures import leaves

__all__ = ["Cleanup", "CleanupScope"]

logger = logging.getLogger("trio_agentapp.runs")


class Cleanup:
    """The cleanup budget of one run, and what became of it.

    `budget` is in seconds, counted from the first stop, else from when the body was through; what begins before
    either has it from its own beginning. `limit` (Trio's clock) is where the lease ends all cleanup; renewals
    move it.
    """

    def __init__(self, budget: float, first_stop: Callable[[], float | None]) -> None:
        self.budget = budget
        self.limit = math.inf
        self.timed_out = False
        self.interrupted = False
        self.body_through_at: float | None = None
        self._first_stop = first_stop
        self._begun = False
        self._open: list[CleanupScope] = []

    def until(self, start: float) -> float:
        return min(start + self.budget, self.limit)

    def extend(self, limit: float) -> None:
        """The lease was renewed: cleanup may last until `limit`."""
        self.limit = limit
        for scope in self._open:
            scope.move()

    def open(self, *, strict: bool = False) -> CleanupScope:
        """A scope to enter. `strict`: leave it with TooSlowError if its deadline cut it."""
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
        # What ended before any stop was ordinary work, not cleanup.
        self._begun = self._begun or self._first_stop() is not None
        self.timed_out = self.timed_out or cut

    def start_of(self) -> float:
        """The moment from which the budget of a scope that opens now counts."""
        for moment in (self._first_stop(), self.body_through_at):
            if moment is not None:
                return moment
        return trio.current_time()

    def inspect(self, error: BaseException, handler: str, warned: set[str]) -> None:
        """Warn once per handler of an await in its cleanup that the stop cut.

        The mark of it is a `Cancelled` raised while another was handled. This finds most cases, not all.
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
    """`async with run.cleanup():` - a shielded scope that ends with the cleanup deadline.

    Entered after a stop, it has what is left of the budget; entered before, the whole budget, and a stop that comes
    meanwhile does not disturb it. When the deadline passes, the block is left at its next await, and the run ends
    as ERROR/cleanup_timeout.
    """

    def __init__(self, cleanup: Cleanup, *, strict: bool = False) -> None:
        self._cleanup = cleanup
        self._strict = strict
        self._start = 0.0
        self._scope = trio.CancelScope(shield=True)

    def move(self) -> None:
        self._scope.deadline = self._cleanup.until(self._start)

    async def __aenter__(self) -> CleanupScope:
        self._start = self._cleanup.start_of()
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
            # Raises, if it takes its own Cancelled out of a group.
            suppressed = self._scope.__exit__(exc_type, exc_value, exc_traceback)
        finally:
            # What the deadline cut may come out as another exception than Cancelled.
            cut = self._scope.cancelled_caught or (exc_value is not None and self._scope.cancel_called)
            self._cleanup.end(self, cut=cut)
        if self._strict and self._scope.cancelled_caught:
            raise trio.TooSlowError
        return suppressed


def _share_a_frame(error: BaseException, context: BaseException) -> bool:
    """Whether both came through one function call.

    Trio makes a Cancelled where the scope is cancelled. If that code was itself handling one, as a request that is
    torn down does, it stands as context here, although this task never saw it.
    """
    frames = {frame for frame, _ in traceback.walk_tb(context.__traceback__)}
    return any(frame in frames for frame, _ in traceback.walk_tb(error.__traceback__))


def _raised_by_closing(error: BaseException) -> bool:
    """Whether Trio's own `aclose` raised it, as at the end of `async with channel`: that closes even so."""
    return any(
        frame.f_code.co_name == "aclose" and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "trio"
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _place_of(error: BaseException) -> str:
    """File and line of the user's await: the innermost frame that is neither Trio's nor Python's own."""
    place = "an unknown line"
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in ("trio", "outcome", "contextlib", "trio_agentapp"):
            place = f"{frame.f_code.co_filename}:{line}"
    return place
