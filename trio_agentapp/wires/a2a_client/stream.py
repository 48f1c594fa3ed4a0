"""`A2AStream`: the events of one task of another agent, from its beginning to its end."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from ...errors import A2AError, AgentAppError, AgentTaskFailed, ConnectionLost
from ...redis.backoff import Backoff
from .answer import Answer, Item
from .decoding import event_of
from .http import Results, StreamBroken
from .progress import Progress
from .task import A2AEvent, A2AReply, A2ATask, ArtifactUpdate, StatusUpdate, TaskSnapshot, TaskState

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["A2AItems", "A2AStream"]

logger = logging.getLogger("trio_agentapp.a2a")

ATTEMPTS = 8
"""Subscriptions without anything new between them, after which the stream is lost."""

STEADY = 10.0
"""Seconds. A subscription that lasted so long does not count: the task is quiet, and its connection was cut."""

RESUME = Backoff(first=0.1, last=5.0)


class A2AStream:
    """`async for event in stream` gives the events; `stream.items()` gives them as items of a handler.

    After a cut the stream subscribes again; no event is lost or comes twice. It ends when the task has ended, or
    waits for its client (`input-required`, `auth-required`).

    `continues`: the task that exists already, which may wait for input.

    Attributes:
        task_id, context_id: of the task; None until the agent has answered, or if it answers with a message.

    Iteration raises:
        A2AError: the agent refused. UnexpectedAnswer: it sent something that is not A2A, or too much.
        ConnectionLost: the connection failed before the task had an id, or could not be resumed.
    """

    def __init__(self, connection: Connection, results: Results, *, continues: str | None = None) -> None:
        self._connection = connection
        self._results = results
        self._progress = Progress()
        self._continues = continues
        self._ready: deque[A2AEvent] = deque()
        self._unread: deque[Any] = deque()
        """Results that are not looked at yet."""
        self._over = False
        self._resumed = False
        """The stream was cut, and the new one has sent nothing yet."""
        self._attempt = 0
        self._since = trio.current_time()

    @property
    def task_id(self) -> str | None:
        task = self._progress.task
        return self._continues if task is None else task.id

    @property
    def context_id(self) -> str | None:
        task, reply = self._progress.task, self._progress.reply
        if task is not None:
            return task.context_id
        return None if reply is None else reply.context_id

    @property
    def task(self) -> A2ATask | None:
        """The task with all that has arrived; None if the agent answered with a message."""
        return self._progress.whole()

    @property
    def state(self) -> TaskState | None:
        """The state of the task as far as it has arrived."""
        task = self._progress.task
        return None if task is None else task.state

    @property
    def has_ended(self) -> bool:
        """Whether the task needs no cancellation: it is over, or there is none."""
        state = self.state
        return self._over and (state is None or state.is_over)

    def __aiter__(self) -> A2AStream:
        return self

    async def __anext__(self) -> A2AEvent:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            await self._fill()
        return self._ready.popleft()

    def items(self) -> A2AItems:
        """Return an iterator over the answer, as items that a handler may yield.

        It raises AgentTaskFailed if the task ends as failed, rejected or canceled; also what iteration raises.
        """
        return A2AItems(self)

    async def wait(self) -> A2AReply:
        """Read to the end, and return the answer. Raises as `items`."""
        async for _ in self:
            pass
        self.check()
        reply = self._progress.reply
        return A2AReply(self.task, None if reply is None else reply.message, self.context_id)

    def check(self) -> None:
        """Raise AgentTaskFailed if the task has ended as failed, rejected or canceled."""
        task = self.task
        if task is not None and task.state in (TaskState.FAILED, TaskState.REJECTED, TaskState.CANCELED):
            raise AgentTaskFailed(self._connection.name, task)

    async def aclose(self) -> None:
        """Stop reading. The task goes on."""
        await self._results.aclose()

    async def wait_begun(self) -> None:
        """Wait until the task has an id, or will never have one. Later iteration gives what is read here."""
        while self.task_id is None and not self._over:
            await self._fill()

    async def _fill(self) -> None:
        """Read on. What is cancelled here is done by the next call."""
        if self._unread:
            await self._take()
            return
        try:
            batch = await self._results.receive()
        except StreamBroken as broken:
            await self._resume(str(broken), sent=broken.sent)
        except A2AError as refusal:
            await self._fetch(refusal)
        except AgentAppError:
            self._over = True
            raise
        else:
            self._unread.extend(batch)
            if batch:
                self._resumed = False
                await self._take()
            elif self.state is not None and self.state.is_interrupted:
                self._over = True
            elif not self._over:
                await self._resume("the agent ended the stream before the task")

    async def _take(self) -> None:
        while self._unread and not self._over:
            event = event_of(self._unread[0])
            repeated = self._progress.may_repeat(event) and await self._repeats(event)
            self._unread.popleft()
            if repeated:
                continue
            task = event.task if isinstance(event, TaskSnapshot) else None
            if task is not None and self._progress.task is not None:
                news = self._progress.renewed(task)
            else:
                new = self._progress.received(event)
                news = [] if new is None else [new]
            self._put(news)
            self._over = self._ends_with(news)

    async def _repeats(self, event: A2AEvent) -> bool:
        """Whether the reader already has this piece from the task that the subscription began with."""
        if not isinstance(event, ArtifactUpdate):
            return False
        try:
            return self._progress.repeats(event, await self._connection.get(event.task_id))
        except (A2AError, ConnectionLost):
            return False

    def _ends_with(self, news: list[A2AEvent]) -> bool:
        """Whether nothing follows. A task that waited for input before goes on until it waits again."""
        state = self.state
        if state is None or state.is_terminal:
            return self._progress.reply is not None or state is not None
        asks_again = any(isinstance(event, StatusUpdate) for event in news)
        return state.is_interrupted and (asks_again or self._continues is None)

    def _put(self, events: list[A2AEvent]) -> None:
        if events:
            self._attempt = 0
            self._ready.extend(events)

    async def _resume(self, reason: str, *, sent: bool = True) -> None:
        """Subscribe again."""
        id = self.task_id
        if id is None:
            self._over = True
            unsure = "; the message may have been executed" if sent else ""
            raise ConnectionLost(f"agent {self._connection.name!r}: {reason}{unsure}")
        if trio.current_time() - self._since >= STEADY:
            self._attempt = 0
        if self._attempt >= ATTEMPTS:
            self._over = True
            raise ConnectionLost(f"agent {self._connection.name!r}: {reason} ({ATTEMPTS} attempts to resume)")
        await trio.sleep(0 if self._attempt == 0 else RESUME.delay(self._attempt - 1))
        self._attempt += 1
        self._since = trio.current_time()
        await self._results.aclose()
        self._results, self._resumed = self._connection.subscribe(id), True

    async def _fetch(self, refusal: A2AError) -> None:
        """The agent refuses. After a cut this may be because the task has ended; else the refusal is raised."""
        id = self.task_id
        task = None
        if self._resumed and id is not None:
            try:
                task = await self._connection.get(id)
            except AgentAppError as error:
                logger.info("agent %s: task %s cannot be fetched: %s", self._connection.name, id, error)
        if task is not None:
            self._put(self._progress.renewed(task))
        self._over = True
        if task is None or not task.state.is_over:
            raise refusal


class A2AItems:
    """The answer of a stream, as items that a handler may yield."""

    def __init__(self, stream: A2AStream) -> None:
        self._stream = stream
        self._answer = Answer()
        self._ready: deque[Item] = deque()

    def __aiter__(self) -> A2AItems:
        return self

    async def __anext__(self) -> Item:
        while not self._ready:
            try:
                event = await anext(self._stream)
            except StopAsyncIteration:
                self._stream.check()
                raise
            self._ready.extend(self._answer.items(event))
        return self._ready.popleft()
