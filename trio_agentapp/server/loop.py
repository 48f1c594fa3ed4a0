"""The serve loop of our own launcher: Hypercorn's protocols, with connections that can be brought to an end.

Hypercorn's worker names its `TCPServer` itself and cancels a connection whole. Here a request can be
cancelled while its connection still sends, and a client that has stopped reading cannot hold up the exit.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config, Sockets
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.lifespan import Lifespan as LifespanDriver
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    AppWrapper,
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    ConnectionState,
    LifespanState,
    Scope,
)
from hypercorn.utils import LifespanFailureError

from .direct import DIRECT, DirectWriter
from .eager import EagerListener
from .guard import CLOSING_PATIENCE, GuardedConnection

__all__ = ["AppFailed", "BindError", "Connection", "ServerConfig", "bind_address", "serve"]

log = logging.getLogger(__name__)

TURN_BYTES = 256 * 1024
"""What one connection may send before others get their turn, if its socket takes it all at once."""

Listener = trio.SSLListener[trio.SocketStream] | EagerListener


class BindError(OSError):
    """An address that cannot be listened on; the message names it."""


class ServerConfig(Config):
    """Hypercorn's configuration with the defaults of a server of long, quiet streams.

    `read_timeout` stays None: it would cut streams on which the client has nothing to say.
    """

    accesslog = None
    backlog = 2048
    errorlog = log
    force_close_after: float = 5.0
    """How long cancelled requests have for their last frames; the runs themselves were drained before."""
    graceful_timeout: float = 3.0
    header_timeout: float = 15.0
    """For the first request's headers, so that idle or slow connections cannot be collected cheaply."""
    include_server_header = False
    keep_alive_timeout = 75.0  # above the usual 60 s of load balancers, which must be the ones to close
    shutdown_timeout = math.inf  # the lifespan bounds itself, and the launcher's watchdog bounds everything
    ssl_handshake_timeout = 15.0
    startup_timeout = math.inf  # loading a model may take its time; orchestrators have start-up probes
    tcp_user_timeout: float = 25.0
    """A peer that acknowledges nothing, or keeps its window shut, for this long is gone (Linux)."""
    websocket_max_message_size = 2**20

    _sockets: Sockets | None = None

    def create_sockets(self) -> Sockets:
        """Bind, once: a busy port is reported before the app starts up; the serve loop uses the same."""
        if self._sockets is None:
            self._sockets = super().create_sockets()
        return self._sockets

    def _create_sockets(self, binds: list[str], type_: int = socket.SOCK_STREAM) -> list[socket.socket]:
        sockets: list[socket.socket] = []
        for bind in binds:
            try:
                if bind.startswith(("unix:", "fd://")):
                    sockets += super()._create_sockets([bind], type_)
                else:
                    sockets.append(self._tcp_socket(bind))
            except OSError as error:
                for sock in sockets:
                    sock.close()
                raise _bind_error(bind, error) from error
        for sock in sockets:
            if hasattr(socket, "TCP_USER_TIMEOUT") and sock.family in (socket.AF_INET, socket.AF_INET6):
                # Accepted sockets inherit it.
                milliseconds = int(self.tcp_user_timeout * 1000)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        return sockets

    def _tcp_socket(self, bind: str) -> socket.socket:
        """As stock does, except that a socket which cannot be bound is closed."""
        host, _, port = bind.rpartition(":")
        host = host.strip("[]")
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.workers > 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind((host, int(port)))
        except BaseException:
            sock.close()
            raise
        sock.setblocking(False)
        return sock

    def close_sockets(self) -> None:
        sockets, self._sockets = self._sockets, None
        if sockets is not None:
            for sock in (*sockets.secure_sockets, *sockets.insecure_sockets):
                sock.close()


class AppFailed(LifespanFailureError):
    """The app could not start, or gave up; it has logged why, and the message says so in its words."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)


class _LifespanDriver(LifespanDriver):
    """Hypercorn's, which sets `startup` also when the start-up has failed: here one can tell."""

    complete = False

    async def asgi_send(self, message: ASGISendEvent) -> None:
        if message["type"] == "lifespan.startup.complete":
            self.complete = True
        try:
            await super().asgi_send(message)
        except LifespanFailureError:
            raise AppFailed(str(message.get("message", ""))) from None


class _Requests:
    """The app as one connection sees it: it knows the requests in progress, and can cancel them."""

    def __init__(self, app: AppWrapper, connection: Connection) -> None:
        self._app = app
        self._connection = connection
        self._scopes: set[trio.CancelScope] = set()
        self._cancelled = False
        self.any_yet = False

    async def __call__(
        self,
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        sync_spawn: Callable[..., Any],
        call_soon: Callable[..., Any],
    ) -> None:
        self.any_yet = True
        if scope["type"] == "http" and scope["http_version"] == "1.1" and self._connection.plain:
            extensions: Any = scope["extensions"]
            extensions[DIRECT] = DirectWriter(self._connection, send)
        with trio.CancelScope() as request:
            self._scopes.add(request)
            if self._cancelled:
                request.cancel(reason="the server is shutting down")
            try:
                await self._app(scope, receive, send, sync_spawn, call_soon)
            finally:
                self._scopes.discard(request)

    def cancel(self) -> None:
        self._cancelled = True
        for request in self._scopes:
            request.cancel(reason="the server is shutting down")


class Connection(GuardedConnection):
    """Hypercorn's connection, except that requests are cancelled apart from it and it can be aborted."""

    config: ServerConfig

    def __init__(
        self,
        app: AppWrapper,
        config: ServerConfig,
        context: WorkerContext,
        state: ConnectionState,
        live: set[Connection],
        stream: trio.SSLStream[trio.SocketStream],
    ) -> None:
        self.requests = _Requests(app, self)
        super().__init__(self.requests, config, context, state, stream)
        self._live = live
        self.plain = isinstance(stream, trio.SocketStream)
        self.unsent = b""
        self._since_checkpoint = 0

    async def run(self) -> None:
        self._live.add(self)
        try:
            await super().run()
        finally:
            self._live.discard(self)

    async def abort(self) -> None:
        """Close the socket under whoever is blocked on it; tell the requests that their client is gone."""
        self.close_socket()
        with trio.move_on_after(CLOSING_PATIENCE):
            if hasattr(self, "protocol"):
                await self.protocol.handle(Closed())

    async def protocol_send(self, event: Event) -> None:
        """Hand bytes to the kernel at once where it takes them; only the rest waits, Hypercorn's way.

        Most writes of a stream fit, and then cost a system call in place of a lock, a shield and two checkpoints
        (HOT-PATH, section 3.2). TLS and WebSockets do not come this way.
        """
        if type(event) is not RawData or not self.plain or self.send_lock.locked() or self._is_websocket():
            await super().protocol_send(event)
            return
        # Nobody has sent since the direct write, which needs the lock to be free.
        data, self.unsent = self.unsent + event.data, b""
        try:
            sent = os.write(self.stream.socket.fileno(), data)
        except BlockingIOError:
            sent = 0
        except OSError:
            await self.note_gone()
            return
        if sent < len(data):
            # Nobody may come between a part and its rest: the lock is free, and shielded it is taken at once.
            with trio.CancelScope(shield=True):
                await super().protocol_send(RawData(data=data[sent:]))
            return
        self._since_checkpoint += sent
        if self._since_checkpoint > TURN_BYTES:
            self._since_checkpoint = 0
            await trio.lowlevel.checkpoint()

    def write_now(self, data: bytes) -> bool:
        """Hand `data` to the socket from any task, without blocking; False: nothing was taken.

        What the socket takes no more of goes out before whatever is sent next.
        """
        if self.unsent or self.send_lock.locked():
            return False
        try:
            sent = os.write(self.stream.socket.fileno(), data)
        except OSError:
            # It takes nothing now, or is gone: the task of the response finds out which.
            return False
        self.unsent = data[sent:]
        return True

    async def send_unsent(self) -> None:
        await self.protocol_send(RawData(data=b""))

    def _is_websocket(self) -> bool:
        """A WebSocket that is refused is closed by its app's task, which Hypercorn's checkpoints let run first."""
        return isinstance(getattr(self.protocol.protocol, "stream", None), WSStream)

    @property
    def _idle_patience(self) -> float:
        return self.config.keep_alive_timeout if self.requests.any_yet else self.config.header_timeout


async def serve(
    app: ASGIFramework,
    config: ServerConfig,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]],
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Start the app, listen, serve until `shutdown_trigger` returns; then close all, in bounded time.

    The trigger runs while the listeners are open, so draining is its business: refusals are still answered.
    `task_status` gets the URLs. Raises `BindError`, or `AppFailed` (in a group).
    """
    sockets = config.create_sockets()
    wrapped = ASGIWrapper(app)
    state: LifespanState = {}
    driver = _LifespanDriver(wrapped, config, state)
    try:
        async with trio.open_nursery() as lifespan:
            await lifespan.start(driver.handle_lifespan)
            await driver.wait_for_startup()
            if not driver.complete:
                # Its failure is on the way to the nursery; Hypercorn wakes us before it has arrived.
                await trio.sleep(CLOSING_PATIENCE)
                raise RuntimeError("the app's lifespan ended without a word")
            listeners, urls = _listen(sockets, config)
            async with trio.open_nursery() as server:
                connections = _Connections(wrapped, config, ConnectionState(state))
                task_status.started(urls)
                await connections.run(server, listeners, shutdown_trigger)
            await driver.wait_for_shutdown()
            lifespan.cancel_scope.cancel(reason="the server is done")
    finally:
        config.close_sockets()


class _Connections:
    """All connections of a server, from the first accept to the last close."""

    def __init__(self, app: AppWrapper, config: ServerConfig, state: ConnectionState) -> None:
        self._app = app
        self._config = config
        self._state = state
        self._context = WorkerContext(None)
        self._live: set[Connection] = set()

    async def run(
        self,
        owner: trio.Nursery,
        listeners: list[Listener],
        shutdown_trigger: Callable[[], Awaitable[object]],
    ) -> None:
        handler = partial(Connection, self._app, self._config, self._context, self._state, self._live)
        closing = trio.CancelScope(shield=True)
        try:
            async with trio.open_nursery() as nursery:
                accept = partial(trio.serve_listeners, handler, listeners, handler_nursery=nursery)
                try:
                    async with trio.open_nursery() as accepting:
                        accepting.start_soon(accept)
                        await shutdown_trigger()
                        accepting.cancel_scope.cancel(reason="the server is shutting down")
                finally:
                    # Also when the lifespan has failed and everything is being cancelled: then, too, a client
                    # that does not read must not keep us.
                    await self._context.terminated.set()
                    owner.start_soon(self._close, closing, nursery)
        finally:
            closing.cancel(reason="all connections are closed")

    async def _close(self, scope: trio.CancelScope, nursery: trio.Nursery) -> None:
        """Ask, then insist, then force; cancelled as soon as nobody is left."""
        with scope:
            await trio.sleep(self._config.graceful_timeout)
            for connection in self._live:
                connection.requests.cancel()
            await trio.sleep(self._config.force_close_after)
            if self._live:
                log.warning("Closing %d connections by force", len(self._live))
            async with trio.open_nursery() as aborting:
                for connection in tuple(self._live):
                    aborting.start_soon(connection.abort)
            await trio.sleep(CLOSING_PATIENCE)
            nursery.cancel_scope.cancel(reason="the server has shut down")


def _listen(sockets: Sockets, config: ServerConfig) -> tuple[list[Listener], list[str]]:
    listeners: list[Listener] = []
    urls: list[str] = []
    tls = config.create_ssl_context()
    for sock in (*sockets.secure_sockets, *sockets.insecure_sockets):
        try:
            sock.listen(config.backlog)
        except OSError as error:
            raise _bind_error(_name(sock), error) from error
        plain = EagerListener(sock)
        if tls is not None and sock in sockets.secure_sockets:
            listeners.append(trio.SSLListener(plain, tls, https_compatible=True))
            urls.append(f"https://{_name(sock)}")
        else:
            listeners.append(plain)
            urls.append(f"http://{_name(sock)}")
    return listeners, urls


def bind_address(host: str, port: int) -> str:
    """As `ServerConfig.bind` and URLs spell it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _name(sock: socket.socket) -> str:
    address = sock.getsockname()
    return bind_address(*address[:2]) if sock.family in (socket.AF_INET, socket.AF_INET6) else f"unix:{address}"


def _bind_error(bind: str, error: OSError) -> BindError:
    if error.errno == errno.EADDRINUSE:
        reason = "the port is in use; say another with app.run(port=...), --port or PORT"
    elif error.errno == errno.EACCES:
        reason = f"{error.strerror}; ports from 1024 on need no privileges: app.run(port=...), --port or PORT"
    elif error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        reason = f"{error.strerror}; say an address of this machine: app.run(host=...), --host or HOST"
    else:
        reason = str(error.strerror)
    return BindError(f"Cannot listen on {bind}: {reason}")
