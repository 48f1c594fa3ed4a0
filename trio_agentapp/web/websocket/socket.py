"""One WebSocket: authenticates its client, reads its messages, and holds its runs.

One task reads the client's messages. Each run has a task that takes batches from its subscriber and writes them. So
each task holds one batch, and nothing else is queued. When either side closes the socket, every run on it loses a
reader, as when a client disconnects.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial

import trio
from quart.wrappers import Websocket

from ...errors import (
    Draining,
    Forbidden,
    RequestError,
    RunNotFound,
    TooManyRequests,
    Unauthorized,
    ValidationError,
)
from ...limits import Rates
from ...protocol.ids import new_run_id, new_session_id
from ...protocol.message import Message
from ...protocol.request import AgentRequest
from ...protocol.trace_context import continued_trace
from ...refusals import note_refusal
from ...runs.runner import Watched
from ...server.extensions import SHUTDOWN_NOTICE, extension
from ...server.websocket_connection import ShutdownNotice
from ..identity import Caller, Principal
from ..principals import address_name, user_name
from ..responses import receipt_body
from ..run_access import RunAccess, wind_down
from . import messages
from .socket_run import SocketRun, error_message
from .writer import SocketWriter

__all__ = ["MAX_RUNS_PER_SOCKET", "Close", "Socket"]

MAX_RUNS_PER_SOCKET = 1000
"""Runs on one socket at a time, and also unanswered messages. One more of either closes the socket (4429)."""


class Close(Exception):
    """Closes the socket with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Socket:
    """Serves one WebSocket: see the docstring of the module."""

    def __init__(
        self,
        access: RunAccess,
        websocket: Websocket,
        *,
        max_message: int,
        init_timeout: float,
        draining: trio.Event,
        frames: Rates,
        admitted: Callable[[str | None], AbstractContextManager[None]],
    ) -> None:
        """`admitted(name)` is a block that counts a socket of its user or address, and raises Close."""
        self._access = access
        self._websocket = websocket
        self._max_message = max_message
        self._init_timeout = init_timeout
        self._draining = draining
        self._frames = frames
        self._admitted = admitted
        self._writer = SocketWriter(websocket, max_message=max_message)
        self._shutdown: ShutdownNotice | None = extension(websocket.scope, SHUTDOWN_NOTICE)
        self._principal: Principal | None = None
        self._may_init = True
        """Whether no message was read yet: a client may send `init` also where nothing needs it."""
        self._runs: dict[str, SocketRun] = {}
        self._asking = 0
        """The number of messages (stops, inputs, pings, errors) whose answers were not sent yet."""
        self._changed = trio.Event()

    async def run(self) -> None:
        """Serve the socket until it closes. Raises Close, alone or in a group."""
        first = await self._authenticate()
        name = address_name(self._websocket.scope)
        if self._principal is not None:
            name = user_name(self._principal.user_id)
        with self._admitted(name):
            await self._writer.send({"type": "ready"})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._close_when_drained)
                nursery.start_soon(self._writer.watch)
                if self._shutdown is not None:
                    self._shutdown.request()
                    nursery.start_soon(self._wind_down, self._shutdown)
                if first is not None:
                    self._handle(first, nursery)
                while True:
                    message = await self._receive()
                    if missing := self._frames.take(name):
                        await self._refuse_frame(message, str(name), missing)
                    else:
                        self._handle(message, nursery)

    async def _refuse_frame(
        self, message: messages.ClientMessage | messages.Refused, name: str, missing: float
    ) -> None:
        """Answer a message beyond the rate limit.

        No further message is read meanwhile, which slows the client down.
        """
        await self._frames.pause(name)
        await self._writer.send(error_message(getattr(message, "id", None), self._frames.refusal(missing)))

    async def _authenticate(self) -> messages.ClientMessage | messages.Refused | None:
        """Authenticate the client. Return its first message if it was read for that and is not an `init`."""
        gate = self._access.gate
        first: messages.ClientMessage | messages.Refused | None = None
        if gate.asks and "Authorization" not in self._websocket.headers:
            with trio.move_on_after(self._init_timeout) as timeout:
                first = await self._receive()
                self._may_init = False
            if timeout.cancelled_caught:
                raise Close(4408, "no init came in time")
            if isinstance(first, messages.Init):
                # A token that cannot be a header value is not valid.
                if first.token is not None and first.token.isprintable():
                    self._websocket.headers["Authorization"] = f"Bearer {first.token}"
                first = None
        try:
            self._principal = await gate.identify(self._websocket)
        except (Unauthorized, Forbidden) as error:
            raise Close(4401, error.detail) from error
        except TooManyRequests as error:
            raise Close(4429, error.detail) from error
        except RequestError as error:
            raise Close(1013, error.detail) from error
        return first

    async def _receive(self) -> messages.ClientMessage | messages.Refused:
        text = await self._websocket.receive()
        if isinstance(text, bytes):
            raise Close(4400, "messages are text frames")
        if len(text) > self._max_message or len(text.encode()) > self._max_message:
            raise Close(1009, "the message is too big")
        try:
            return messages.read(text)
        except messages.NotAMessage as error:
            raise Close(4400, str(error)) from error

    def _handle(self, message: messages.ClientMessage | messages.Refused, nursery: trio.Nursery) -> None:
        """Handle a message without waiting. What takes time gets a task, so that a later stop is read meanwhile."""
        may_init, self._may_init = self._may_init, False
        match message:
            case messages.Start(id, request, traceparent):
                request.id = request.id or new_run_id()
                request.session_id = request.session_id or new_session_id()
                run = SocketRun(id, request.id, request.session_id, Caller(self._principal, request.user_id))
                self._follow(nursery, run, lambda: self._begin(run.caller, request, traceparent))
            case messages.Attach(id, run_id, after, user_id):
                run = SocketRun(id, run_id, None, Caller(self._principal, user_id))
                self._follow(nursery, run, lambda: self._access.attach(run.caller, run_id, after))
            case messages.Detach(id) if id in self._runs:
                self._runs.pop(id).scope.cancel(reason="the client detached")
            case messages.Stop(id, wait):
                self._answer(nursery, id, partial(self._stop, self._runs.get(id), wait))
            case messages.Input(id, given):
                self._answer(nursery, id, partial(self._input, self._runs.get(id), given))
            case messages.Detach(id):
                self._answer(nursery, id, partial(self._refuse, RunNotFound()))
            case messages.Refused(named, error):
                self._answer(nursery, named, partial(self._refuse, error))
            case messages.Init() if may_init:
                pass
            case messages.Init():
                late = ValidationError([("$.type", "init must be the first message")])
                self._answer(nursery, None, partial(self._refuse, late))
            case messages.Ping():
                self._answer(nursery, None, partial(self._writer.send, {"type": "pong"}))

    def _follow(
        self, nursery: trio.Nursery, run: SocketRun, begin: Callable[[], Awaitable[Watched | None]]
    ) -> None:
        """Start the task that sends the events of a run; `begin` starts the run or attaches to it."""
        if run.id in self._runs:
            raise Close(4409, "this id is in use on this socket")
        if len(self._runs) >= MAX_RUNS_PER_SOCKET:
            note_refusal("runs_per_socket")
            raise Close(4429, f"more than {MAX_RUNS_PER_SOCKET} runs on one socket")
        self._runs[run.id] = run

        async def follow() -> None:
            last = await run.follow(begin, self._access, self._writer)
            # Remove the id before the last message is sent, because the client may use it again after that. If the
            # client has detached, another run may have the id already.
            if self._runs.get(run.id) is run:
                del self._runs[run.id]
            if last is not None:
                await self._writer.send(last)
            self._note_change()

        nursery.start_soon(follow)

    async def _begin(self, caller: Caller, request: AgentRequest, traceparent: str | None) -> Watched:
        if self._draining.is_set():
            raise Draining
        with continued_trace({} if traceparent is None else {"traceparent": traceparent}):
            return await self._access.start(caller, request)

    def _answer(self, nursery: trio.Nursery, id: str | None, answer: Callable[[], Awaitable[None]]) -> None:
        """Start a task that answers a message; a RequestError becomes an error message with this id."""
        if self._asking >= MAX_RUNS_PER_SOCKET:
            note_refusal("answers_per_socket")
            raise Close(4429, "too many messages that wait for their answers")
        self._asking += 1

        async def task() -> None:
            try:
                await answer()
            except RequestError as error:
                await self._writer.send(error_message(id, error))
            finally:
                self._asking -= 1
                self._note_change()

        nursery.start_soon(task)

    async def _stop(self, run: SocketRun | None, wait: bool) -> None:
        if run is None:
            raise RunNotFound
        receipt = await self._access.stop(run.caller, run_id=run.run_id, session_id=run.session_id, wait=wait)
        await self._writer.send({"type": "stopped", "id": run.id, "receipt": receipt_body(receipt)})

    async def _input(self, run: SocketRun | None, message: Message) -> None:
        if run is None:
            raise RunNotFound
        await self._access.send_input(run.caller, run.run_id, message)

    async def _refuse(self, error: RequestError) -> None:
        raise error

    async def _close_when_drained(self) -> None:
        await self._draining.wait()
        while self._runs or self._asking:
            await self._changed.wait()
        raise Close(1001, "this node is shutting down")

    async def _wind_down(self, shutdown: ShutdownNotice) -> None:
        """End the runs when the server shuts down without a drain, as the bare `hypercorn` command does."""
        await shutdown.received.wait()
        self._draining.set()
        for run in self._runs.values():
            if run.watched is not None:
                wind_down(run.watched)

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
