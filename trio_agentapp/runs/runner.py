"""Starts a run for each request. A handler gets the `Runner` as its argument `self`."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from ..errors import BackendUnavailable, ItemError
from ..protocol.codec import request_from
from ..protocol.events import Event, ResponseEvent
from ..protocol.ids import SessionKey, new_run_id, new_session_id
from ..protocol.lifecycle import Phase
from ..protocol.request import AgentRequest, MultitaskStrategy, OnDisconnect
from .handler import Handler
from .registry import RunRegistry
from .run import Run
from .stream import Gap, Subscriber

__all__ = ["Runner", "Watched"]


@attrs.frozen(kw_only=True)
class Watched:
    """A run and a reader of its events. While the reader is open, the run counts as watched (`on_disconnect`).

    Attributes:
        subscriber: the reader. Close it when the client has left.
        run: the run, if it is live on this node.
    """

    key: SessionKey
    run_id: str
    subscriber: Subscriber
    run: Run | None = None

    @property
    def session_id(self) -> str:
        return self.key.session_id

    async def terminal(self) -> ResponseEvent:
        """Read until the end of the run, close the reader, and return the terminal event.

        Raises BackendUnavailable: the reader was closed before the terminal event.
        """
        with self.subscriber as subscriber:
            while True:
                try:
                    batch = await subscriber.receive()
                except (trio.EndOfChannel, trio.ClosedResourceError):
                    raise BackendUnavailable(
                        "The end of this run cannot be read at present.", retry_after=1.0
                    ) from None
                last = batch[-1] if batch else None
                if isinstance(last, ResponseEvent) and last.terminal:
                    return last


class Runner:
    """Starts runs of one handler with the settings of the app. It is the argument `self` of handlers.

    Attributes:
        app: the AgentApp.
        framework_type: the `framework` of `@app.query`, such as "langgraph"; "text" for handlers without one.
    """

    def __init__(
        self,
        *,
        app: Any,
        handler: Handler,
        registry: RunRegistry,
        framework_type: str = "text",
        on_disconnect: OnDisconnect = "cancel",
        multitask_strategy: MultitaskStrategy = "reject",
    ) -> None:
        self.app = app
        self.framework_type = framework_type
        self._handler = handler
        self._registry = registry
        self._on_disconnect = on_disconnect
        self._multitask_strategy = multitask_strategy

    @property
    def strategy_unwatched(self) -> MultitaskStrategy:
        """The strategy for runs in the background (`enable_stream_task`): "enqueue" in place of "reject".

        No client waits for such a run and could repeat it after a refusal, so it waits in the queue of a busy
        session.
        """
        return "enqueue" if self._multitask_strategy == "reject" else self._multitask_strategy

    async def start(self, request: AgentRequest, *, entry: str = "code") -> Watched:
        """Start a run for `request`. If a run of the same id and session is live on this node, watch that one.

        Fills in missing ids of the request, see `fill_ids`. `entry`: the route or protocol that the request came
        through, for metrics and traces.

        Raises:
            Draining, TooManyRuns, SessionBusy, QueueFull, BackendUnavailable, ValidationError: nothing was started.
        """
        key, run_id = fill_ids(request)
        known = self._registry.find(run_id)
        if known is not None and known.key == key and known.lifecycle.phase is not Phase.CLAIMING:
            await trio.lowlevel.checkpoint()
            return Watched(key=key, run_id=run_id, subscriber=known.watch(), run=known)
        run = Run(
            run_id=run_id,
            key=key,
            timeout_s=request.timeout_s,
            cleanup_budget=self._registry.cleanup_budget,
            on_disconnect="continue" if request.background else request.on_disconnect or self._on_disconnect,
            handler_name=self._handler.name,
            entry=entry,
        )
        # Copy the list, since the handler may change it.
        run.asked = tuple(request.input)
        run.first_state = request.state
        offered = {"self": self, "msgs": list(request.input), "request": request, "run": run, "app": self.app}
        strategy = request.multitask_strategy or self._multitask_strategy
        await self._registry.start(run, self._handler, offered, strategy=strategy)
        return Watched(key=key, run_id=run_id, subscriber=run.watch(), run=run)

    @asynccontextmanager
    async def stream_query(
        self, request: AgentRequest | dict[str, Any] | str
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Start a run in this process, without HTTP, and read its events.

            async with app.stream_query("Hello") as events:
                async for event in events: ...

        Leaving the block before the terminal event counts as a disconnect.

        Raises:
            ValidationError: the request is malformed. Also all that `start` raises.
            ItemError: at an event that the log had dropped, because it was read too late.
        """
        watched = await self.start(request_from(request))
        with watched.subscriber:
            yield _Events(watched.subscriber)


class _Events:
    """Iterates over the events of a reader.

    It is a class and not a generator, since a generator would have to be closed after a `break`.
    """

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._batch: deque[Event | Gap] = deque()

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> Event:
        while not self._batch:
            try:
                self._batch.extend(await self._subscriber.receive())
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
        event = self._batch.popleft()
        if isinstance(event, Gap):
            raise ItemError(f"events {event.start} to {event.stop} were read too late and are gone")
        return event


def fill_ids(request: AgentRequest, *, user_id: str | None = None) -> tuple[SessionKey, str]:
    """Fill in the ids that a request lacks. Return its session and its run id.

    A missing session id or run id is generated. A missing user id becomes `user_id`, the authenticated user.
    Without that, it becomes the session id. So two requests without ids never share a session.
    """
    session_id = request.session_id = request.session_id or new_session_id()
    user = request.user_id = request.user_id or user_id or session_id
    run_id = request.id = request.id or new_run_id()
    return SessionKey(user, session_id), run_id
