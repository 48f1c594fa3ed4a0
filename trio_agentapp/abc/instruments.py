"""The contract of instruments, which count, time and trace runs.

The run core calls an instrument a few times for each run, and never for an event, so instruments do not slow down
the events. It does not depend on a metrics library or a tracer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import attrs
import trio

from ..protocol.ids import SessionKey
from ..protocol.lifecycle import CleanupResult, Ending
from ..protocol.tasks import TaskState

__all__ = ["ClaimResult", "Instrument", "NodeFigures", "RunEnd", "RunFacts", "TaskFacts"]

ClaimResult = Literal["granted", "queued", "stopped", "busy", "queue_full", "unavailable", "refused", "abandoned"]
"""The answer to a claim. `stopped`: the run was stopped before it began. `abandoned`: its client disconnected."""


@attrs.frozen(kw_only=True)
class RunFacts:
    """The identity of a run.

    `entry` is the protocol or route that started it, `handler` the name of its function.
    """

    run_id: str
    key: SessionKey
    node_id: str
    entry: str
    handler: str


@attrs.frozen(kw_only=True)
class RunEnd:
    """How a run has ended. Durations are in seconds.

    Attributes:
        ending: the state and cause that were recorded.
        seconds: from the request to the record of the end.
        first_event_seconds: from the request to the handler's first item; None if it sent none.
        stop_seconds: from the first stop on this node to the end of all that the run executes; None if it was not
            stopped.
        stop_scope: whether that stop came from this node ("local") or through the interrupt backend ("remote").
        cleanup: the result of its cleanup.
    """

    ending: Ending
    seconds: float
    first_event_seconds: float | None
    stop_seconds: float | None
    stop_scope: Literal["local", "remote"]
    cleanup: CleanupResult


@attrs.frozen(kw_only=True)
class TaskFacts:
    """The identity of a task. `name` is the path of its `@app.task`."""

    task_id: str
    name: str


@attrs.frozen(kw_only=True)
class NodeFigures:
    """The state of a node at one moment.

    Attributes:
        live: runs that are claimed, queued or executed. queued: those of them that wait for their session.
        ended: runs that are over, refused claims included.
        stuck: ids of stopped runs that have not ended within their cleanup budget.
        subscribers: open readers of runs.
        events: events of all runs since the start of the process.
        draining: no new runs are accepted.
        backend_up: the interrupt backend reports no trouble.
    """

    live: int
    queued: int
    ended: int
    stuck: tuple[str, ...]
    subscribers: int
    events: int
    draining: bool
    backend_up: bool


class Instrument:
    """Receives reports about the runs of one node. Every method does nothing unless it is overridden.

    All methods are called in the thread of the event loop and must not block. An exception of an instrument is
    logged, and changes no run.
    """

    async def serve(self, figures: Callable[[], NodeFigures]) -> None:
        """Run as long as the node accepts or executes runs. `figures()` returns its present state, cheaply."""
        await trio.sleep_forever()

    def claiming(self, run: RunFacts) -> AbstractContextManager[object]:
        """Return a block to enter while the run claims its session."""
        return nullcontext()

    def claimed(self, run: RunFacts, result: ClaimResult, seconds: float) -> None:
        """The claim of a run was answered."""

    def running(self, run: RunFacts) -> AbstractContextManager[object]:
        """Return a block to enter in the task of the run, from its start to the record of its end.

        Context variables that it sets are seen by the handler, its child tasks and its threads.
        """
        return nullcontext()

    def ended(self, run: RunFacts, end: RunEnd) -> None:
        """The end of a run is recorded. Called inside the block of `running`."""

    def stopping(self, run_id: str | None, key: SessionKey | None) -> AbstractContextManager[object]:
        """Return a block to enter while this node stops a run, which may be on another node."""
        return nullcontext()

    def executing(self, task: TaskFacts) -> AbstractContextManager[object]:
        """Return a block to enter while a task is executed: in this process, or in a Celery worker.

        Context variables that it sets are seen by the function and its threads.
        """
        return nullcontext()

    def executed(self, task: TaskFacts, state: TaskState, error: str | None) -> None:
        """A task has ended, with this state and error code. Called inside the block of `executing`."""
