"""A run: one execution of a handler for one request."""

from __future__ import annotations

import inspect
import logging
import math
import os
import subprocess
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any, TypeVarTuple

import trio

from ..abc import MAX_INPUT, EventSink, Lease
from ..protocol.builder import AnswerTooLarge, ResponseBuilder
from ..protocol.events import Failure
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Cause, Ending, Phase, RunState
from ..protocol.message import Message
from ..protocol.request import CancelAfter
from .cleanup import Cleanup, CleanupScope
from .containment import contain
from .log import EventLog
from .process import GRACE, Command, open_group
from .stream import Subscriber

__all__ = ["TURN", "OnDisconnect", "Run", "StopFlag", "current_run", "shielded_write"]

logger = logging.getLogger("trio_agentapp.runs")

Ts = TypeVarTuple("Ts")

TURN = 0.010
"""Seconds of a handler's items without a checkpoint until the run makes one: nobody holds the loop."""

OUTSIDE_BUDGET = 10.0
"""Seconds a store's write may take where no run, and so no cleanup budget, is around it."""

INPUT_POLL = 1.0
"""Seconds that a handler waits for input before other nodes' messages are looked for: wake-ups may be lost."""

OnDisconnect = CancelAfter | str
"""What the leaving of the last watcher means: "cancel", "continue", or CancelAfter(seconds)."""

current_run: ContextVar[Run] = ContextVar("trio_agentapp_current_run")
"""The run whose handler is being executed, also in its threads."""


class StopFlag:
    """Whether the run is being stopped. `is_set()` may be called from any thread."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope
        self._event = trio.Event()

    def is_set(self) -> bool:
        if self._event.is_set():
            return True
        # A scope whose deadline has passed is stopped too, although nobody called `stop`.
        return trio.lowlevel.in_trio_task() and self._scope.cancel_called

    def __bool__(self) -> bool:
        return self.is_set()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        """Wait for the flag. A run that is stopped while this waits sees `Cancelled`, as from every await."""
        await self._event.wait()


class Run:
    """What a handler gets as `run`: who and what it runs for, and the means to end well.

    Attributes:
        run_id, user_id, session_id: whom it serves.
        token: the fencing token; a later run of the session has a greater one.
        stopping: a flag, readable from any thread; `if run.stopping:` works.
        deadline: when the run's own time is over, on Trio's clock; `math.inf` without `timeout_s`.
    """

    def __init__(
        self,
        *,
        run_id: str,
        key: SessionKey,
        timeout_s: float | None = None,
        cleanup_budget: float = 30.0,
        on_disconnect: OnDisconnect = "cancel",
        handler_name: str = "handler",
    ) -> None:
        self.run_id = run_id
        self.key = key
        self.token = 0
        self.deadline = math.inf if timeout_s is None else trio.current_time() + timeout_s
        self.handler_name = handler_name
        # From here on: what the runtime works with. A handler has no use for it.
        self.scope = trio.CancelScope(deadline=self.deadline)
        self.stopping = StopFlag(self.scope)
        # Nothing here refers back to the run: its events, which may be many megabytes, go when it is dropped, and
        # do not wait for the garbage collector.
        me = weakref.ref(self)
        self.cleanup_state = Cleanup(cleanup_budget, lambda: None if (run := me()) is None else run.first_stop())
        self.builder = ResponseBuilder(run_id, key.session_id, created_at=int(time.time()))
        self.log = EventLog()
        self.sink: EventSink = self.log
        """Where events go; what readers are shown comes out of the log."""
        self.asked: Sequence[Message] = ()
        """The messages of the request."""
        self.shared = False
        """Readers on other nodes see the events too, so nobody here knows alone whether the run is watched."""
        self.on_unwatched: Callable[[], object] | None = None
        self.on_input_wanted: Callable[[], object] | None = None
        """Called when the handler waits for input that may have been sent to another node."""
        self.replaces: list[str] = []
        """The runs of its session that this one stopped, to take their place."""
        self.waits = False
        """It has no session yet, and a place in line for it."""
        self.undoes = False
        """What these have saved is to be undone."""
        self.input_received = 0
        """Messages that other nodes have sent on so far."""
        self.state = RunState.IDLE
        self.phase = Phase.RUNNING
        self.cause: Cause | None = None
        self.ending: Ending | None = None
        self.stop_requested = False
        self.stuck = False
        self.unwound = False
        """Nothing of the handler runs any more; what may be left is to write the end."""
        self.created_at = time.time()
        self.ended = trio.Event()
        self.on_disconnect = on_disconnect
        self.unwatched_since: float | None = None
        self.lease: Lease | None = None
        self.renewed_at = -math.inf
        """When the last confirmed renewal of the lease was sent, on Trio's clock."""
        self.exit_callbacks: list[Callable[[], object]] = []
        self._lease_deadline = math.inf
        self._stopped_at: float | None = None
        self._children: trio.Nursery | None = None
        self._inbox: deque[Message] = deque()
        self._input_arrived = trio.Event()
        # Long ago: the first item makes a pause, so that it is on its way before a busy handler goes on.
        self._turn_began = 0.0

    def __repr__(self) -> str:
        return f"<Run {self.run_id} of {self.key.user_id!r}/{self.key.session_id!r}, {self.phase.value}>"

    @property
    def undecided(self) -> bool:
        """It asks for its session, and has no answer yet; if that is no, there will have been no such run."""
        return self.state is RunState.IDLE and not self.waits

    @property
    def user_id(self) -> str:
        return self.key.user_id

    @property
    def session_id(self) -> str:
        return self.key.session_id

    # What handlers call.

    @property
    def usage(self) -> Mapping[str, Any] | None:
        """What the run used, such as tokens: told by its terminal event, however it ends.

        Setting raises ItemError for what is not a JSON object.
        """
        return self.builder.usage

    @usage.setter
    def usage(self, usage: Mapping[str, Any] | None) -> None:
        self.builder.usage = usage

    def cleanup(self) -> CleanupScope:
        """`async with run.cleanup():` - awaits that a stop does not cut, for the cleanup budget at most."""
        return self.cleanup_state.open()

    def on_exit(self, fn: Callable[[], Awaitable[object] | object]) -> None:
        """Call `fn()` after the body and its children have unwound, whatever ended them; last registered first.

        It runs like the inside of `run.cleanup()`. An exception it raises is logged and turns FINISHED into ERROR.
        """
        self.exit_callbacks.append(fn)

    def start_soon(self, fn: Callable[[*Ts], Awaitable[object]], *args: *Ts, name: object = None) -> None:
        """Start a child task: its exception ends the run as an error; when the handler returns, it is cancelled.

        Raises:
            RuntimeError: the handler is not being executed.
        """
        if self._children is None:
            raise RuntimeError("run.start_soon works while the handler is being executed")
        self._children.start_soon(fn, *args, name=name)

    def open_process(
        self,
        command: Command,
        *,
        stdin: Any = subprocess.DEVNULL,
        stdout: Any = None,
        stderr: Any = None,
        shell: bool = False,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        grace: float = GRACE,
    ) -> AbstractAsyncContextManager[trio.Process]:
        """Start a process that ends with the block, together with everything that it has started.

            async with run.open_process(["make", "all"], stdout=subprocess.PIPE) as process:
                async for piece in process.stdout: ...
                code = await process.wait()

        Leaving the block, in whatever way, sends SIGTERM to its process group, SIGKILL after `grace` seconds or
        before the cleanup deadline, and waits until the group is gone; pipes are closed. Parameters as in
        `trio.lowlevel.open_process`, except that there is no input unless it is asked for. A process that makes
        itself a session of its own (setsid, a daemon) leaves the group.

        Raises OSError: it cannot be started.
        """
        return open_group(
            self.cleanup_state,
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            shell=shell,
            cwd=cwd,
            env=env,
            grace=grace,
        )

    async def emit(self, item: object) -> None:
        """Send an item, as a `yield` of the handler does; also from its children.

        Waits while every reader lags far behind. After a stop nothing is sent any more.

        Raises:
            ItemError: the item cannot be sent; nothing was.
        """
        if self.emit_nowait(item):
            await self.pause()

    async def receive(self) -> Message:
        """The next message that was sent to this run while it runs (`POST /runs/{id}/input`); waits for one.

        Up to 64 messages wait for it; more are refused. A stop ends the waiting, as it does every await.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._inbox:
            if self._input_arrived.is_set():
                self._input_arrived = trio.Event()
            with trio.move_on_after(INPUT_POLL):
                await self._input_arrived.wait()
            if not self._inbox and self.on_input_wanted is not None:
                self.on_input_wanted()
        message = self._inbox.popleft()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return message

    # What the runtime calls.

    def give_input(self, message: Message) -> bool:
        """Put a message into the inbox; False if that is full."""
        if len(self._inbox) >= MAX_INPUT:
            return False
        self._inbox.append(message)
        self._input_arrived.set()
        return True

    @property
    def has_room_for_input(self) -> bool:
        return len(self._inbox) < MAX_INPUT

    def emit_nowait(self, item: object) -> bool:
        """Send an item; True if the sender has to `pause` before its next one."""
        if self.scope.deadline < math.inf:
            self.note_deadline()
        if self.phase is not Phase.RUNNING:
            return True
        sink = self.sink
        if sink.drained:
            # A reader, which is another task, took the last item: so others have had their turn since.
            self._turn_began = time.monotonic()
        try:
            events = self.builder.add(item)
        except AnswerTooLarge:
            self.stop(Cause.ANSWER_TOO_LARGE)
            return True
        sink.put(events)
        return time.monotonic() - self._turn_began >= TURN or sink.congested

    async def pause(self) -> None:
        """Let others run; while too much is on its way, wait. This is where a yield meets a stop."""
        try:
            if self.sink.congested and self.phase is Phase.RUNNING:
                await self.sink.wait_relieved()
            else:
                await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            self.note_deadline()
            raise
        self._turn_began = time.monotonic()

    def first_stop(self) -> float | None:
        """When the run was first stopped, by whatever; None if it was not."""
        if self._stopped_at is None and self.scope.cancel_called:
            self._stopped_at = min(trio.current_time(), self.scope.deadline)
        return self._stopped_at

    def stop(self, cause: Cause) -> bool:
        """End the run. True if that is what will have ended it, False if the body's end came first."""
        self.stop_requested = self.stop_requested or cause is Cause.STOPPED
        if self.phase in (Phase.FINISHING, Phase.ENDED):
            return False
        if self.cause is None:
            self.first_stop()
            self.note_deadline()
        if self.cause is None:
            self.cause = cause
            self._stopped_at = trio.current_time()
        self.phase = Phase.STOPPING
        self.stopping.set()
        self.scope.cancel(reason=f"run {self.run_id}: {self.cause.value}")
        return True

    def note_deadline(self) -> None:
        """If the scope's deadline has ended the body, say which it was: the run's own, or its lease's."""
        if self.cause is None and self.scope.cancel_called:
            own = self.deadline <= self._lease_deadline
            self.cause = Cause.DEADLINE_EXCEEDED if own else Cause.LEASE_LOST
            self.phase = Phase.STOPPING
            self.stopping.set()

    def renew(self, *, body_until: float, cleanup_until: float) -> None:
        """A confirmed renewal of the lease: the times until which body and cleanup may run, on Trio's clock."""
        self.note_deadline()
        self._lease_deadline = body_until
        self.scope.deadline = min(self.deadline, body_until)
        self.cleanup_state.extend(cleanup_until)

    def adopt(self, children: trio.Nursery | None) -> None:
        self._children = children

    def body_ended(self) -> None:
        """The handler has returned or raised: a stop seen before means STOPPED, one seen later comes too late."""
        self.note_deadline()
        if self.cause is None:
            self.cause = Cause.RETURNED
        self.cleanup_state.body_through_at = trio.current_time()
        self.phase = Phase.FINISHING

    async def call_exit_callbacks(self) -> list[BaseException]:
        """Call what `on_exit` registered, all of it; what it raised."""
        raised: list[BaseException] = []
        while self.exit_callbacks:
            fn = self.exit_callbacks.pop()
            try:
                async with self.cleanup():
                    (await contain(_call_back, fn)).unwrap()
            except BaseException as exc:
                # Caught outside the scope: it takes its own Cancelled out of a group first.
                raised.append(exc)
        return raised

    def watch(self, after: int = -1) -> Subscriber:
        """A reader whose presence counts: when the last one leaves, `on_disconnect` decides."""
        subscriber = self.log.subscribe(after)
        self.unwatched_since = None
        subscriber.on_close(self._watcher_left)
        return subscriber

    def _watcher_left(self) -> None:
        if self.log.has_readers or self.phase is Phase.ENDED:
            return
        if self.on_disconnect == "cancel" and not self.shared:
            self.stop(Cause.DISCONNECTED)
            return
        self.unwatched_since = trio.current_time()
        if self.on_unwatched is not None:
            self.on_unwatched()

    def overdue(self, now: float) -> bool:
        """The cleanup deadline has passed, and the run has still not unwound."""
        self.note_deadline()
        began = self.first_stop()
        if began is None:
            # The handler is through, and its children or exit callbacks have not.
            began = self.cleanup_state.body_through_at
        return not self.unwound and began is not None and now > self.cleanup_state.until(began) + 1.0


async def _call_back(fn: Callable[[], Awaitable[object] | object]) -> None:
    result = fn()
    if inspect.isawaitable(result):
        await result


def shielded_write() -> CleanupScope:
    """`async with shielded_write():` - what a store writes in here is not cut by a stop.

    Inside a run it counts against the cleanup budget; elsewhere it has 10 s. A write that takes longer is cut, and
    leaves the block with `trio.TooSlowError`: nobody takes it for done.
    """
    run = current_run.get(None)
    cleanup = Cleanup(OUTSIDE_BUDGET, lambda: None) if run is None else run.cleanup_state
    return cleanup.open(strict=True)


def log_failure(run: Run, what: str, error: BaseException) -> None:
    """Log what a handler raised. Names come with `%r`, so that nobody's text breaks a line."""
    logger.error("run %s (handler %r): %s", run.run_id, run.handler_name, what, exc_info=error)


def log_end(run: Run, ending: Ending, told: Failure | None) -> None:
    """Log how a run has ended, with what its client was told of a failure."""
    logger.info(
        "run %s has ended: %s (%s), %.3f s after its request%s",
        run.run_id,
        ending.state.value,
        ending.cause.value,
        time.time() - run.created_at,
        f"; its client was told: {told.message}" if told and ending.state is RunState.ERROR else "",
    )
