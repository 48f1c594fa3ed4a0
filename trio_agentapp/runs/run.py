"""A run: one execution of a handler for one request. Handlers get the `Run` as their argument `run`."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVarTuple

import trio

from ..abc import EventSink, Lease, Renewal
from ..late import LateEvent
from ..protocol.builder import AnswerTooLarge, ResponseBuilder
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Cause, Phase, RunLifecycle, RunRecord
from ..protocol.message import Message
from ..protocol.request import CancelAfter, OnDisconnect
from ..protocol.shared_state import SharedState
from ..refusals import note_refusal
from .cleanup import Cleanup, CleanupScope
from .containment import called, contain
from .event_log import EventLog
from .process import GRACE, Command, open_group
from .questions import Answer
from .run_input import RunInput
from .stoppable import StopFlag, StoppableScope
from .stream import Subscriber

__all__ = ["TURN", "Run", "current_run", "shielded_write"]

logger = logging.getLogger("trio_agentapp.runs")

Ts = TypeVarTuple("Ts")

TURN = 0.010
"""Seconds for which a handler may send items without a checkpoint. Then the run makes one, for other tasks."""

OUTSIDE_BUDGET = 10.0
"""Seconds that a shielded write of a store may take outside of a run, where there is no cleanup budget."""

STATE_INTERVAL = 0.05
"""Seconds between two events that send changes of a run's state. People do not see more than 20 in a second."""

_STATES = threading.Lock()
"""Protects every `run.state`, which handlers may change in threads. It is held for a few assignments only."""

current_run: ContextVar[Run] = ContextVar("trio_agentapp_current_run")
"""The run whose handler the current task or thread executes. Child tasks and threads of a handler inherit it."""


class Run:
    """One execution of a handler. The handler uses it to send items, to receive input, and to clean up.

    Attributes:
        run_id, user_id, session_id: ids of the run, its user and its session.
        token: the fencing token; a later run of the session has a greater one.
        stopping: True when the run is being stopped. May be read in any thread: `if run.stopping:`.
        deadline: when `timeout_s` of the request is over, on Trio's clock; `math.inf` without `timeout_s`.

    The other attributes are for the runtime. No object that a run holds refers back to the run. So there is no
    reference cycle, and its events, which may be many megabytes, are freed without the garbage collector.
    """

    # A dict of so many attributes takes 1.5 KiB. There is one only if a handler sets attributes of its own.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_absence",
        "_input",
        "_trio_token",
        "_turn_began",
        "asked",
        "began_at",
        "builder",
        "children",
        "cleanup_state",
        "created_at",
        "deadline",
        "ended",
        "entry",
        "exit_callbacks",
        "first_item_at",
        "first_state",
        "handler_name",
        "key",
        "lease",
        "lifecycle",
        "log",
        "on_disconnect",
        "on_input_wanted",
        "on_questions",
        "on_unwatched",
        "renewed_at",
        "replaces",
        "rolls_back_replaced",
        "run_id",
        "scope",
        "shared",
        "sink",
        "stopped_remotely",
        "stopping",
        "token",
        "unwatched_since",
    )

    def __init__(
        self,
        *,
        run_id: str,
        key: SessionKey,
        timeout_s: float | None = None,
        cleanup_budget: float = 30.0,
        on_disconnect: OnDisconnect = "cancel",
        handler_name: str = "handler",
        entry: str = "code",
    ) -> None:
        self.run_id = run_id
        self.key = key
        self.token = 0
        self.deadline = math.inf if timeout_s is None else trio.current_time() + timeout_s
        self.handler_name = handler_name
        self.entry = entry
        """Name of the protocol or route that has started the run, for metrics and traces."""
        self.lifecycle = RunLifecycle()
        self.scope = StoppableScope(self.lifecycle, f"run {run_id}", deadline=self.deadline)
        self.stopping = StopFlag(self.scope.cancel_scope)
        self.scope.on_stop = self.stopping.set
        self.cleanup_state = Cleanup(cleanup_budget, self.scope)
        self.created_at = time.time()
        self.builder = ResponseBuilder(run_id, key.session_id, created_at=int(self.created_at))
        self.log = EventLog()
        self.sink: EventSink = self.log
        """Where events are put: the log, or a sink of the event store, which puts them into the log later."""
        self.asked: Sequence[Message] = ()
        """The messages of the request."""
        self.first_state: Mapping[str, Any] | None = None
        """The state of the request."""
        self.shared = False
        """Whether nodes share the event store. Then the run may have readers on other nodes."""
        self.on_unwatched: Callable[[], object] | None = None
        self.on_input_wanted: Callable[[Run], object] = _no_other_node
        """Called when the handler waits for input, which may have been sent to another node."""
        self.on_questions: Callable[[Run], object] = _no_other_node
        """Called when a question was opened or closed, so that other nodes can list it."""
        self.replaces: list[str] = []
        """The runs of its session that this one has stopped to take their place."""
        self.rolls_back_replaced = False
        """Whether the writes of the runs in `replaces` are rolled back before the handler starts."""
        self._trio_token = trio.lowlevel.current_trio_token()
        self.began_at = trio.current_time()
        self.first_item_at: float | None = None
        """When the handler sent its first item, on Trio's clock."""
        self.stopped_remotely = False
        """Whether the first stop came through the interrupt backend."""
        self.ended = LateEvent()
        self.on_disconnect = on_disconnect
        self.unwatched_since: float | None = None
        self._absence: CancelAfter | None = None
        self.lease: Lease | None = None
        self.renewed_at = -math.inf
        """When the last confirmed renewal of the lease was sent, on Trio's clock."""
        self.exit_callbacks: list[Callable[[], object]] = []
        self.children: trio.Nursery | None = None
        """Where `start_soon` starts tasks, while the handler is executed."""
        self._input: RunInput | None = None
        # Zero is long ago, so the run pauses after its first item, which is sent before a busy handler continues.
        self._turn_began = 0.0

    def __repr__(self) -> str:
        return f"<Run {self.run_id} of {self.key.user_id!r}/{self.key.session_id!r}, {self.lifecycle.phase.value}>"

    @property
    def user_id(self) -> str:
        return self.key.user_id

    @property
    def session_id(self) -> str:
        return self.key.session_id

    # What handlers call.

    @property
    def usage(self) -> Mapping[str, Any] | None:
        """The resources that the run has used, such as model tokens. Sent with the terminal event of every ending.

        Setting raises ItemError for a value that is not a JSON object.
        """
        return self.builder.usage

    @usage.setter
    def usage(self, usage: Mapping[str, Any] | None) -> None:
        self.builder.usage = usage

    @property
    def state(self) -> SharedState:
        """A JSON object that front ends show; each change is sent to the clients.

            run.state["progress"] = 0.5

        It begins as the `state` of the request. Changes that are made without an await between them are sent
        together, at most 20 times a second; a change is sent before what the handler yields after it. Setting
        replaces the whole object. Raises ItemError for what has no form in JSON, or is too large.
        """
        state = self.builder.state
        if state is None:
            # Two threads of the handler may get here at the same time, and must get the same object.
            with _STATES:
                state = self.builder.state = self.builder.state or SharedState(self.first_state, _STATES)
            self._trio_token.run_sync_soon(self._send_state_changes)
        return state

    @state.setter
    def state(self, value: Mapping[str, Any]) -> None:
        self.state.replace(value)

    def cleanup(self) -> CleanupScope:
        """Return a scope in which awaits work after a stop: `async with run.cleanup(): await save()`.

        It is shielded from the stop, and is cancelled when the cleanup budget of the run is used up.
        """
        return self.cleanup_state.open()

    def on_exit(self, fn: Callable[[], Awaitable[object] | object]) -> None:
        """Register `fn` to be called after the handler and its child tasks have ended, also after a stop or error.

        Functions are called in the reverse order of their registration, each inside `run.cleanup()`. An exception
        of one is logged, and a run that would be FINISHED becomes ERROR.
        """
        self.exit_callbacks.append(fn)

    def start_soon(self, fn: Callable[[*Ts], Awaitable[object]], *args: *Ts, name: object = None) -> None:
        """Start a child task. Its exception ends the run as an error; it is cancelled when the handler returns.

        Raises:
            RuntimeError: the handler is not being executed.
        """
        if self.children is None:
            raise RuntimeError("run.start_soon works while the handler is being executed")
        self.children.start_soon(fn, *args, name=name)

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
        """Send an item, as `yield` in the handler does. Child tasks may call it, too.

        Waits while all readers are too far behind. After a stop, items are dropped.

        Raises:
            ItemError: the item cannot be sent. Nothing of it was sent.
        """
        if self.emit_nowait(item):
            await self.pause()

    async def receive(self) -> Message:
        """Wait for the next message that a client sends to this run (`POST /runs/{id}/input`), and return it.

        The inbox holds 64 messages; more are refused. A stop cancels this await like every other one.
        """
        return await self.input.receive()

    async def ask(
        self, question: str | Message, *, schema: Any = None, timeout: float | None = None, auth: bool = False
    ) -> Answer:
        """Ask a question of the clients, and wait for the answer. Any client may give it, on any node.

            if (await run.ask("Delete all files?", schema=bool)).approved: ...

        Clients see a message of type `mcp_approval_request`, or what their protocol has for it. They answer in
        their protocol, or by `POST /runs/{id}/input`. A stop ends this await like every other one.

        Args:
            schema: the type of the answer: `bool` for an approval; `str`, `Literal[...]`, a dataclass, an attrs or
                pydantic class and so on. An answer of another form is refused, and the question asked again. A JSON
                Schema (a dict) is shown to clients; the answer is not checked against it.
            timeout: seconds to wait at most.
            auth: the client has to log in somewhere first; the question says where.

        Raises:
            trio.TooSlowError: nobody answered in time.
            ItemError: the question cannot be sent.
            ConfigurationError: there is no JSON Schema of `schema`.
            RuntimeError: 64 questions of this run are open.
        """
        asked = self.input.open_question(question, schema=schema, timeout=timeout, auth=auth)
        await self.emit(asked.message())
        answer = await self.input.wait_answered(asked, timeout, self.emit)
        if answer is None:
            raise trio.TooSlowError
        return answer

    # What the runtime calls.

    @property
    def input(self) -> RunInput:
        """The inbox and the questions of this run. They are made when first used, since most runs get no input."""
        if self._input is None:
            self._input = RunInput(
                self.run_id, fetch=partial(self.on_input_wanted, self), post=partial(self.on_questions, self)
            )
        return self._input

    def record(self) -> RunRecord:
        """Return the record of the run: with its end, if it has ended, or its present state."""
        lifecycle, ending = self.lifecycle, self.lifecycle.ending
        cause = lifecycle.cause if ending is None else ending.cause
        return RunRecord(
            run_id=self.run_id,
            key=self.key,
            state=lifecycle.state,
            reason=None if cause is None else cause.value,
            token=self.token,
            node_id="" if self.lease is None else self.lease.node_id,
            started_at=self.created_at,
            stop_requested=lifecycle.asked_to_stop or (ending is not None and ending.stop_requested),
            cleanup=self.cleanup_state.result if ending is None else ending.cleanup,
            cleanup_interrupted=self.cleanup_state.interrupted,
        )

    def emit_nowait(self, item: object) -> bool:
        """Send an item. Returns True if the sender has to `pause` before its next one."""
        if self.scope.ends_at < math.inf:
            self.scope.note_deadline()
        if self.lifecycle.phase is not Phase.RUNNING:
            return True
        sink = self.sink
        if sink.drained:
            # A reader has read the last item in a task of its own, so other tasks have run since then.
            self._turn_began = time.monotonic()
        builder = self.builder
        if builder.state is not None and builder.state.pending:
            self.send_state()
        try:
            events = builder.add(item)
        except AnswerTooLarge:
            note_refusal("event_bytes_per_run")
            self.scope.stop(Cause.ANSWER_TOO_LARGE)
            return True
        sink.put(events)
        if self.first_item_at is None:
            self.first_item_at = trio.current_time()
        return time.monotonic() - self._turn_began >= TURN or sink.congested

    def send_state(self) -> None:
        """Send the changes of the state to the readers."""
        if self.lifecycle.phase is Phase.RUNNING and (events := self.builder.take_state()):
            self.sink.put(events)

    def _send_state_changes(self) -> None:
        # While the handler is executed, the nursery is open. Later changes are sent with the end of the run.
        if self.children is not None and self.lifecycle.phase is Phase.RUNNING:
            self.children.start_soon(send_state_changes, self, name="changes of run.state")

    async def pause(self) -> None:
        """Execute a checkpoint, and wait while the sink is congested. Raises `trio.Cancelled` after a stop."""
        try:
            if self.sink.congested and self.lifecycle.phase is Phase.RUNNING:
                await self.sink.wait_relieved()
            else:
                await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            self.scope.note_deadline()
            raise
        self._turn_began = time.monotonic()

    def renew(self, *, body_until: float, cleanup_until: float) -> None:
        """Move the deadlines of the handler and of its cleanup (Trio's clock), because the lease was renewed."""
        self.scope.renew(body_until)
        self.cleanup_state.extend(cleanup_until)

    def apply_renewal(self, answer: Renewal) -> None:
        """Stop the run if the renewal of its lease was answered with STOP or LOST."""
        if answer is Renewal.LOST:
            self.scope.stop(Cause.LEASE_LOST)
        elif answer is Renewal.STOP:
            self.stop_remotely()

    def stop_remotely(self) -> None:
        """Stop the run, because the interrupt backend says so."""
        self.stopped_remotely = self.stopped_remotely or self.lifecycle.cause is None
        self.scope.stop(Cause.STOPPED)

    async def call_exit_callbacks(self) -> list[BaseException]:
        """Call the functions that `on_exit` registered. Return the exceptions that they raised."""
        raised: list[BaseException] = []
        while self.exit_callbacks:
            fn = self.exit_callbacks.pop()
            try:
                async with self.cleanup():
                    (await contain(called, fn)).unwrap()
            except BaseException as exc:
                # Catch it outside of the scope, which has removed its own Cancelled from a group by now.
                raised.append(exc)
        return raised

    def watch(self, after: int = -1) -> Subscriber:
        """Return a reader of the events after number `after`. It counts as a watcher of the run.

        When the last watcher closes, `on_disconnect` decides whether the run is stopped.
        """
        subscriber = self.log.subscribe(after)
        self.unwatched_since = self._absence = None
        subscriber.on_close = self._watcher_left
        return subscriber

    def expect_absence(self, limit: CancelAfter) -> None:
        """Allow the run to be unwatched for `limit` while a client answers a question.

        For protocols that end the stream at a question and open another one for the answer. Until a client watches
        the run again, `limit` applies in place of `on_disconnect="cancel"`.
        """
        if self.on_disconnect == "cancel":
            self._absence = limit

    @property
    def when_unwatched(self) -> OnDisconnect:
        """The policy that applies now if the run has no watcher."""
        return self._absence or self.on_disconnect

    def _watcher_left(self) -> None:
        if self.log.reader_count or self.lifecycle.phase is Phase.ENDED:
            return
        if self.when_unwatched == "cancel" and not self.shared:
            self.scope.stop(Cause.DISCONNECTED)
            return
        self.unwatched_since = trio.current_time()
        if self.on_unwatched is not None:
            self.on_unwatched()

    def is_overdue(self, now: float) -> bool:
        """Whether the handler or its cleanup still executes one second after the cleanup deadline."""
        began_at = self.cleanup_state.began_at()
        return (
            not self.lifecycle.has_unwound
            and began_at is not None
            and now > self.cleanup_state.until(began_at) + 1.0
        )

    def close(self) -> None:
        """Close the log, set `ended`, and drop the callbacks, which refer to objects that refer to the run."""
        self.log.close()
        self.ended.set()
        self.sink, self._input, self.on_unwatched = self.log, None, None
        self.on_input_wanted = self.on_questions = _no_other_node


def _no_other_node(_run: Run) -> None:
    """Do nothing. The callback of runs whose backend has no other nodes."""


async def send_state_changes(run: Run) -> None:
    """Send the changes of a run's state while its handler is executed: the first at once, the next after pauses."""
    state, token = run.state, trio.lowlevel.current_trio_token()
    try:
        while True:
            changed = trio.Event()
            state.on_change = partial(token.run_sync_soon, changed.set)
            if not state.pending:
                await changed.wait()
            run.send_state()
            await run.pause()
            await trio.sleep(STATE_INTERVAL)
    finally:
        state.on_change = None


def shielded_write() -> CleanupScope:
    """Return a scope in which a store writes, so that a stop does not cut the write in the middle.

    Inside a run the scope ends with the cleanup budget; elsewhere after 10 s. Then the write is cancelled, and
    `async with` raises `trio.TooSlowError`, so that the caller knows that it may not have been written.
    """
    run = current_run.get(None)
    cleanup = Cleanup(OUTSIDE_BUDGET) if run is None else run.cleanup_state
    return cleanup.open(strict=True)
