"""One connection that fails harms no other, and one that does not read costs little.

Hypercorn's connections share a nursery. So an error in its protocols, as some bytes behind a WebSocket upgrade
cause (hypercorn, issue 225), would end them all, and the server. And what an HTTP/2 client does not take, it would
keep without any bound.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import h2
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BUFFER_LOW_WATER, BufferCompleteError, StreamBuffer
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIReceiveCallable, ASGISendCallable, ConnectionState, Scope

from ..runs.failures import is_cancelled
from .read_ahead import ClientLeft, ReadAhead

__all__ = ["ABORT", "GuardedConnection", "guard_http2", "guard_hypercorn"]

log = logging.getLogger(__name__)


ABORT: Any = "trio_agentapp.abort"
"""The extension of an ASGI scope that closes the socket under whoever is blocked on it; does not block."""


CLOSING_PATIENCE = 1.0
"""For what is local work once a socket is closed."""


class _Offering:
    """An app whose scopes offer to abort the connection they came by."""

    def __init__(self, app: AppWrapper, abort: Callable[[], None]) -> None:
        self._app = app
        self._abort = abort

    async def __call__(
        self,
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        sync_spawn: Callable[..., Any],
        call_soon: Callable[..., Any],
    ) -> None:
        extended: Any = scope
        extended["extensions"] = {**(extended.get("extensions") or {}), ABORT: self._abort}
        await self._app(scope, receive, send, sync_spawn, call_soon)


class GuardedConnection(TCPServer):
    """Hypercorn's connection, which fails alone and can be aborted."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: ConnectionState,
        stream: trio.SSLStream[trio.SocketStream],
    ) -> None:
        super().__init__(_Offering(app, self.close_socket), config, context, state, stream)
        self._gone = False

    async def protocol_send(self, event: Event) -> None:
        """As stock does, except that a cancelled sender loses no bytes and no notice.

        Tasks of several streams send here, each under its own cancel scope. What they send is the connection's: a
        part that is left out makes the rest unreadable, and that the peer has gone is told to each stream once.
        """
        if isinstance(event, RawData):
            try:
                with trio.CancelScope(shield=True):
                    async with self.send_lock:
                        await self.stream.send_all(event.data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self.note_gone()
        elif isinstance(event, Closed):
            try:
                await self._close()
            finally:
                await self.note_gone()
        else:
            await super().protocol_send(event)

    async def note_gone(self) -> None:
        """Have the streams told that the peer has gone, by a task of the connection and not by the caller."""
        self._task_group.spawn(self.protocol.handle, Closed())
        # A sender that meets no other checkpoint would not let that task run.
        await trio.lowlevel.checkpoint()

    def close_socket(self) -> None:
        """Close the socket under whoever is blocked on it, by its own means or not at all."""
        stream: Any = self.stream
        getattr(stream, "transport_stream", stream).socket.close()

    async def _read_data(self) -> None:
        protocol = self.protocol.protocol
        if isinstance(protocol, H11Protocol):
            protocol.can_read = ReadAhead(protocol, self.stream)
        try:
            await super()._read_data()
        except ClientLeft:
            await self.protocol.handle(Closed())
        # Stock, the idle timer would keep a connection whose client has gone until the time-out.
        self._gone = True
        await self.idle_task.stop()

    @property
    def _idle_patience(self) -> float:
        """Seconds after which a connection without a request is closed."""
        return self.config.keep_alive_timeout

    async def _idle_timeout(self) -> None:
        with trio.move_on_after(0 if self._gone else self._idle_patience):
            await self.context.terminated.wait()
        # Shielded, for closing posts `Updated` events that stop this very task; bounded, for a TLS goodbye
        # can block.
        with trio.move_on_after(CLOSING_PATIENCE, shield=True):
            await self._initiate_server_close()

    async def run(self) -> None:
        try:
            await super().run()
        except BaseException as exc:
            if is_cancelled(exc):
                raise
            log.exception("A connection failed")


class BoundedBuffer(StreamBuffer):
    """What is on its way to one HTTP/2 stream: who sends waits until most of it is gone.

    Hypercorn's own lets the sender go on after each look at a client whose window is closed, with nothing taken.
    """

    async def push(self, data: bytes) -> None:
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        while len(self.buffer) >= BUFFER_HIGH_WATER and not self._complete:
            await self._paused.clear()
            await self._paused.wait()

    async def pop(self, max_length: int) -> bytes:
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


def guard_http2() -> None:
    """Have what clients of HTTP/2 do not take bounded, whoever serves. Repeating it does nothing."""
    h2.StreamBuffer = BoundedBuffer  # type: ignore[misc]


def guard_hypercorn() -> None:
    """Have the bare `hypercorn` command use it, too.

    Its worker takes the class from its module when it begins to listen, which is after the app's start-up; it
    offers no other way in.
    """
    worker = sys.modules.get("hypercorn.trio.run")
    if worker is not None:
        worker.TCPServer = GuardedConnection  # type: ignore[attr-defined]
