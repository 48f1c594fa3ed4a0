"""`/ws`: many runs on one WebSocket (WIRE, section 4).

One task reads what the client says. Each run has a task that takes batches from its subscriber, and they write in
turn, a batch each: so a busy run cannot starve a quiet one, and nothing is queued beyond what each has in hand.
What ends the socket, from either side, leaves every run on it as a reader does that hangs up.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs
import orjson
import trio
from quart.wrappers import Websocket

from ..errors import Draining, RequestError, RunNotFound, Unauthorized, ValidationError
from ..protocol.codec import encode_event
from ..protocol.events import Event, ResponseEvent
from ..protocol.ids import new_run_id, new_session_id
from ..protocol.lifecycle import RunState
from ..protocol.message import Message
from ..protocol.request import AgentRequest
from ..runs import Gap, Subscriber
from ..runs.runner import Watched
from ..server.extensions import ABORT, SHUTDOWN_NOTICE, WEBSOCKET_STREAM, extension
from ..server.problems import problem_body
from ..server.websocket_connection import ShutdownNotice
from ..server.websocket_stream import WebSocketStream
from . import messages
from .answers import receipt_body
from .identity import Principal
from .runs import wind_down
from .service import RunService

__all__ = ["MAX_RUNS_PER_SOCKET", "SUBPROTOCOL", "SocketRoute"]

log = logging.getLogger(__name__)

SUBPROTOCOL = "trio-agentapp.v1"

SEND_PATIENCE = 60.0
"""Seconds that one write may take: a peer that reads nothing for so long is cut."""

MAX_RUNS_PER_SOCKET = 1000
"""Runs that are followed on one socket at a time; as many stops and inputs may be on their way. One more: 4429."""

STATES = {"completed": RunState.FINISHED, "canceled": RunState.STOPPED}


class Close(Exception):
    """The socket ends, with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@attrs.frozen(kw_only=True)
class SocketRoute:
    """The view of `/ws`.

    Args:
        max_message: bytes of a message from the client.
        init_timeout: seconds to prove who one is, where that is asked.
        origins: of other web pages than the server's own that may connect.
    """

    service: RunService
    max_message: int
    init_timeout: float
    origins: Collection[str] = ()
    draining: trio.Event = attrs.field(factory=trio.Event)
    """Set when the node takes no new runs: sockets close once they have none left."""

    async def serve(self, websocket: Websocket) -> None:
        """Serve one socket until either side closes it."""
        proposed = websocket.requested_subprotocols
        await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in proposed else None)
        code, reason = 1000, ""
        try:
            check_origin(websocket, self.origins)
            await Socket(self, websocket).run()
        except* Close as closes:
            code, reason = _first(closes)
        except* Exception:
            log.exception("A WebSocket failed")
            code, reason = 1011, "internal error"
        await websocket.close(code, reason)


def check_origin(websocket: Websocket, allowed: Collection[str]) -> None:
    """Let web pages of this host and of allowed origins connect; others than browsers send no `Origin`.

    Raises Close.
    """
    origin = websocket.headers.get("Origin")
    if origin is not None and origin not in allowed and not _is_own(origin, websocket.headers.get("Host", "")):
        raise Close(4403, "this origin is not allowed")


def _is_own(origin: str, host: str) -> bool:
    try:
        page, here = urlsplit(origin), urlsplit(f"//{host}")
        # The scheme of the page is not compared: TLS may end at a proxy.
        usual = {"http": 80, "https": 443}.get(page.scheme)
        own = (page.hostname, page.port or usual) == (here.hostname, here.port or usual)
    except ValueError:
        return False
    return own and page.hostname is not None


def _first(group: BaseExceptionGroup[Close]) -> tuple[int, str]:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Close)  # noqa: S101
    return error.code, error.reason


@attrs.define
class Entry:
    """One run on a socket, under the id that the client chose."""

    run_id: str
    session_id: str | None
    user_id: str | None
    watched: Watched | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


class Socket:
    """One socket: who is on it, and its runs."""

    def __init__(self, route: SocketRoute, websocket: Websocket) -> None:
        self._route = route
        self._service = route.service
        self._websocket = websocket
        self._stream: WebSocketStream | None = extension(websocket.scope, WEBSOCKET_STREAM)
        self._notice: ShutdownNotice | None = extension(websocket.scope, SHUTDOWN_NOTICE)
        self._abort: Callable[[], None] | None = extension(websocket.scope, ABORT)
        if self._stream is not None:
            self._stream.limit(route.max_message)
        self._draining = route.draining
        self._principal: Principal | None = None
        self._entries: dict[str, Entry] = {}
        self._asking = 0
        self._changed = trio.Event()
        self._turn = trio.StrictFIFOLock()
        self._writing_since = math.inf

    async def run(self) -> None:
        """Raises Close, in a group or alone."""
        first = await self._introduce()
        await self._send({"type": "ready"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._leave_when_drained)
            if self._abort is not None:
                nursery.start_soon(self._watch_writes, self._abort)
            if self._notice is not None:
                self._notice.request()
                nursery.start_soon(self._wind_down, self._notice)
            if first is not None:
                self._handle(first, nursery)
            while True:
                self._handle(await self._receive(), nursery)

    # Who it is.

    async def _introduce(self) -> messages.ClientMessage | messages.Refused | None:
        """Establish who is there. Gives the first message if that was needed for it, and was no `init`."""
        gate = self._service.gate
        first: messages.ClientMessage | messages.Refused | None = None
        if gate.asks and "Authorization" not in self._websocket.headers:
            with trio.move_on_after(self._route.init_timeout) as patience:
                first = await self._receive()
            if patience.cancelled_caught:
                raise Close(4408, "no init came in time")
            if isinstance(first, messages.Init):
                if first.token is not None:
                    self._websocket.headers["Authorization"] = f"Bearer {first.token}"
                first = None
        try:
            self._principal = await gate.identify(self._websocket)
        except Unauthorized as error:
            raise Close(4401, error.detail) from error
        return first

    # What it says.

    async def _receive(self) -> messages.ClientMessage | messages.Refused:
        text = await self._websocket.receive()
        if isinstance(text, bytes):
            raise Close(4400, "messages are text frames")
        if len(text) > self._route.max_message or len(text.encode()) > self._route.max_message:
            raise Close(1009, "the message is too big")
        try:
            return messages.read(text)
        except messages.NotAMessage as error:
            raise Close(4400, str(error)) from error

    def _handle(self, message: messages.ClientMessage | messages.Refused, nursery: trio.Nursery) -> None:
        """Never waits: what takes time has a task of its own, so that a stop finds its way past it."""
        match message:
            case messages.Start(id, asked):
                asked.id = asked.id or new_run_id()
                asked.session_id = asked.session_id or new_session_id()
                entry = Entry(asked.id, asked.session_id, asked.user_id)
                self._admit(id, entry)
                nursery.start_soon(self._follow, id, entry, lambda: self._begin(asked))
            case messages.Attach(id, run_id, after, user_id):
                entry = Entry(run_id, None, user_id)
                self._admit(id, entry)
                nursery.start_soon(
                    self._follow,
                    id,
                    entry,
                    lambda: self._service.attach(self._principal, run_id, after, user_id=user_id),
                )
            case messages.Detach(id) if id in self._entries:
                self._entries.pop(id).scope.cancel(reason="the client detached")
            case messages.Stop(id, wait):
                self._ask(nursery, id, lambda entry: self._stop(id, entry, wait=wait))
            case messages.Input(id, said):
                self._ask(nursery, id, lambda entry: self._input(entry, said))
            case messages.Detach(id):
                self._ask_freely(nursery, lambda: self._send_error(id, RunNotFound()))
            case messages.Refused(named, error):
                self._ask_freely(nursery, lambda: self._send_error(named, error))
            case messages.Init():
                late = ValidationError([("$.type", "init comes first, or not at all")])
                self._ask_freely(nursery, lambda: self._send_error(None, late))
            case messages.Ping():
                self._ask_freely(nursery, lambda: self._send({"type": "pong"}))

    def _admit(self, id: str, entry: Entry) -> None:
        if id in self._entries:
            raise Close(4409, "this id is in use on this socket")
        if len(self._entries) >= MAX_RUNS_PER_SOCKET:
            raise Close(4429, f"more than {MAX_RUNS_PER_SOCKET} runs on one socket")
        self._entries[id] = entry

    def _ask(self, nursery: trio.Nursery, id: str, question: Callable[[Entry], Awaitable[None]]) -> None:
        """Ask something about a run on this socket, and answer under its id."""
        entry = self._entries.get(id)

        async def ask() -> None:
            try:
                if entry is None:
                    raise RunNotFound
                await question(entry)
            except RequestError as error:
                await self._send_error(id, error)

        self._ask_freely(nursery, ask)

    def _ask_freely(self, nursery: trio.Nursery, question: Callable[[], Awaitable[None]]) -> None:
        if self._asking >= MAX_RUNS_PER_SOCKET:
            raise Close(4429, "too many messages that wait for their answers")
        self._asking += 1
        nursery.start_soon(self._asked, question)

    async def _asked(self, question: Callable[[], Awaitable[None]]) -> None:
        try:
            await question()
        finally:
            self._asking -= 1
            self._note_change()

    async def _stop(self, id: str, entry: Entry, *, wait: bool) -> None:
        receipt = await self._service.stop(
            self._principal, run_id=entry.run_id, session_id=entry.session_id, user_id=entry.user_id, wait=wait
        )
        await self._send({"type": "stopped", "id": id, "receipt": receipt_body(receipt)})

    async def _input(self, entry: Entry, message: Message) -> None:
        await self._service.send_input(self._principal, entry.run_id, message, user_id=entry.user_id)

    # What it is told.

    async def _follow(self, id: str, entry: Entry, begin: Callable[[], Awaitable[Watched | None]]) -> None:
        """The task of one run: from its start, or the attach, to its last event."""
        last: Mapping[str, Any] | None = None
        error: RequestError | None = None
        with entry.scope:
            try:
                watched = await begin()
                state = await self._state_of(entry) if watched is None else None
            except RequestError as refusal:
                error = refusal
            else:
                if watched is not None:
                    entry.run_id, entry.watched = watched.run_id, watched
                    with watched.subscriber as subscriber:
                        state = await self._tell(id, watched, subscriber)
                last = {"type": "done", "id": id, "state": state}
        # From here on the client may use the id again; if it has detached, it may have done so already.
        if self._entries.get(id) is entry:
            del self._entries[id]
        if error is not None:
            await self._send_error(id, error)
        elif last is not None:
            await self._send(last)
        self._note_change()

    async def _begin(self, asked: AgentRequest) -> Watched:
        if self._draining.is_set():
            raise Draining
        return await self._service.start(self._principal, asked)

    async def _state_of(self, entry: Entry) -> str:
        """The state of a run that has nothing more to tell."""
        known = await self._service.look(self._principal, entry.run_id, user_id=entry.user_id)
        return known.as_record.state.value

    async def _tell(self, id: str, watched: Watched, subscriber: Subscriber) -> str | None:
        """Spell a run's events; its state at the end, None if they broke off before."""
        await self._send({"type": "started", "id": id, "run_id": watched.run_id, "session_id": watched.session_id})
        before = b'{"type":"event","id":%b,"event":' % orjson.dumps(id)
        state: str | None = None
        while True:
            try:
                batch = await subscriber.receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                return state
            if not batch:
                # A quiet run: the socket's own pings are its sign of life.
                continue
            await self._write([_spelled(before, id, item) for item in batch])
            end = batch[-1]
            if isinstance(end, ResponseEvent) and end.terminal:
                state = STATES.get(end.status, RunState.ERROR).value

    async def _send_error(self, id: str | None, error: RequestError) -> None:
        body = problem_body(error)
        if error.retry_after is not None:
            body["retry_after"] = error.retry_after
        await self._send({"type": "error", "id": id, "error": body})

    async def _send(self, message: Mapping[str, Any]) -> None:
        await self._write([orjson.dumps(message).decode()])

    async def _write(self, texts: list[str]) -> None:
        async with self._turn:
            self._writing_since = trio.current_time()
            try:
                if self._stream is not None:
                    await self._stream.send_texts(texts)
                else:
                    for text in texts:
                        await self._websocket.send(text)
            finally:
                self._writing_since = math.inf
            # What is sent to a peer that has gone goes nowhere, at once: let its leaving be seen.
            await trio.lowlevel.checkpoint()

    async def _watch_writes(self, abort: Callable[[], None]) -> None:
        """A write is shielded, since half a frame spoils the connection: nothing but its end can end it."""
        while True:
            await trio.sleep(SEND_PATIENCE / 4)
            if trio.current_time() - self._writing_since > SEND_PATIENCE:
                log.info("A WebSocket is cut: its peer has read nothing for %g s", SEND_PATIENCE)
                abort()

    # How it ends.

    async def _leave_when_drained(self) -> None:
        await self._draining.wait()
        while self._entries or self._asking:
            await self._changed.wait()
        raise Close(1001, "this node is shutting down")

    async def _wind_down(self, notice: ShutdownNotice) -> None:
        """The server leaves without a drain, as under the bare `hypercorn` command: end the runs in good order."""
        await notice.received.wait()
        self._draining.set()
        for entry in self._entries.values():
            if entry.watched is not None:
                wind_down(entry.watched)

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _spelled(before: bytes, id: str, item: Event | Gap) -> str:
    if isinstance(item, Gap):
        return orjson.dumps({"type": "gap", "id": id, "from": item.start, "to": item.stop}).decode()
    return (before + encode_event(item) + b"}").decode()
