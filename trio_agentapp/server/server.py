"""The server: starts the app, accepts connections, and closes everything in bounded time.

It uses Hypercorn's protocols, and replaces the loop around them. `docs/discussion/server.md` explains why.
"""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Sockets
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

from ..refusals import note_refusal
from .config import ServerConfig, bind_address, bind_error
from .listener import EagerListener
from .tcp_connection import CLOSE_TIMEOUT, Connection, close_socket
from .turns import Turns

__all__ = ["AppFailed", "serve"]

log = logging.getLogger("trio_agentapp.server")

WARNING_INTERVAL = 60.0
"""Seconds between two warnings that the limit of connections is reached."""

Listener = trio.SSLListener[trio.SocketStream] | EagerListener


class AppFailed(LifespanFailureError):
    """The app could not start, or crashed. It has logged the reason, which is also the message of this error."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)


class _LifespanDriver(LifespanDriver):
    """Hypercorn's lifespan driver, which sets `startup` also when the start-up fails; `complete` is False then."""

    complete = False

    async def asgi_send(self, message: ASGISendEvent) -> None:
        if message["type"] == "lifespan.startup.complete":
            self.complete = True
        try:
            await super().asgi_send(message)
        except LifespanFailureError:
            raise AppFailed(str(message.get("message", ""))) from None


async def serve(
    app: ASGIFramework,
    config: ServerConfig,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]],
    live: set[Connection] | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Start the app, listen, serve until `shutdown_trigger` returns, then close everything.

    The listeners stay open while the trigger runs, so that it can drain the runs and new requests still get their
    refusals. `task_status` receives the URLs. `live` holds the open connections.

    Raises:
        BindError: an address cannot be listened on.
        AppFailed: in a group.
    """
    sockets = config.create_sockets()
    wrapped = _Wrapper(app)
    state: LifespanState = {}
    driver = _LifespanDriver(wrapped, config, state)
    try:
        async with trio.open_nursery() as lifespan:
            await lifespan.start(driver.handle_lifespan)
            await driver.wait_for_startup()
            if not driver.complete:
                # Hypercorn wakes this task before the exception of the lifespan reaches the nursery. Wait for it.
                await trio.sleep(CLOSE_TIMEOUT)
                raise RuntimeError("the app's lifespan ended without an answer")
            turns = Turns()
            listeners, urls = _listen(sockets, config, turns)
            async with trio.open_nursery() as server:
                connections = _Connections(
                    wrapped, config, ConnectionState(state), set() if live is None else live, turns
                )
                if hasattr(app, "note_addresses"):
                    app.note_addresses(urls)
                task_status.started(urls)
                await connections.run(server, listeners, shutdown_trigger)
            await driver.wait_for_shutdown()
            lifespan.cancel_scope.cancel(reason="the server is done")
    finally:
        config.close_sockets()


class _Wrapper(ASGIWrapper):
    """Calls the app as Hypercorn's wrapper does, without a coroutine frame that lasts as long as the request."""

    def __call__(
        self,
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        sync_spawn: Callable[..., Any],  # noqa: ARG002  Hypercorn passes it
        call_soon: Callable[..., Any],  # noqa: ARG002
    ) -> Coroutine[Any, Any, None]:
        responding: Any = self.app(scope, receive, send)
        return cast(Coroutine[Any, Any, None], responding)


class _Connections:
    """All connections of a server, from the first accept to the last close."""

    def __init__(
        self, app: AppWrapper, config: ServerConfig, state: ConnectionState, live: set[Connection], turns: Turns
    ) -> None:
        self._app = app
        self._config = config
        self._state = state
        self._context = WorkerContext(None)
        self._live = live
        self._warn_at = -math.inf
        self._turns = turns

    async def run(
        self,
        owner: trio.Nursery,
        listeners: list[Listener],
        shutdown_trigger: Callable[[], Awaitable[object]],
    ) -> None:
        closing = trio.CancelScope(shield=True)
        try:
            async with self._turns.served(), trio.open_nursery() as nursery:
                handlers: Any = _Handlers(nursery)
                accept = partial(trio.serve_listeners, self._connection, listeners, handler_nursery=handlers)
                try:
                    async with trio.open_nursery() as accepting:
                        accepting.start_soon(accept)
                        await shutdown_trigger()
                        accepting.cancel_scope.cancel(reason="the server is shutting down")
                finally:
                    # Close the sockets also if the lifespan has failed and everything is cancelled. Otherwise a
                    # client that does not read would delay the exit.
                    await self._context.terminated.set()
                    for connection in self._live:
                        connection.stop_waiting()
                    owner.start_soon(self._close, closing, nursery)
        finally:
            closing.cancel(reason="all connections are closed")

    def _connection(self, stream: Any) -> Coroutine[Any, Any, None]:
        if len(self._live) < self._config.max_connections:
            return Connection(
                self._app, self._config, self._context, self._state, self._live, stream, turns=self._turns
            ).run()
        note_refusal("connections")
        if trio.current_time() > self._warn_at:
            self._warn_at = trio.current_time() + WARNING_INTERVAL
            log.warning(
                "%d connections are open, which is the limit (max_connections); further ones are closed",
                self._config.max_connections,
            )
        return _refuse(stream)

    async def _close(self, scope: trio.CancelScope, nursery: trio.Nursery) -> None:
        """Wait for requests, then cancel them, then close the sockets.

        It is cancelled as soon as no connection is left.
        """
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
            await trio.sleep(CLOSE_TIMEOUT)
            nursery.cancel_scope.cancel(reason="the server has shut down")


class _Handlers:
    """Starts the tasks of connections in place of the nursery of `trio.serve_listeners`.

    Trio would wrap each handler in a function that closes the socket once more, which takes two scopes, and whose
    frame lasts as long as the connection.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start_soon(self, _: object, stream: Any, handler: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        self._nursery.start_soon(handler, stream)


async def _refuse(stream: Any) -> None:
    """Close a connection beyond the limit."""
    close_socket(stream)
    await trio.lowlevel.checkpoint()


def _listen(sockets: Sockets, config: ServerConfig, turns: Turns) -> tuple[list[Listener], list[str]]:
    listeners: list[Listener] = []
    urls: list[str] = []
    tls = config.create_ssl_context()
    for sock in (*sockets.secure_sockets, *sockets.insecure_sockets):
        try:
            sock.listen(config.backlog)
        except OSError as error:
            raise bind_error(_name(sock), error) from error
        plain = EagerListener(sock, turns)
        if tls is not None and sock in sockets.secure_sockets:
            listeners.append(trio.SSLListener(plain, tls, https_compatible=True))
            urls.append(f"https://{_name(sock)}")
        else:
            listeners.append(plain)
            urls.append(f"http://{_name(sock)}")
    return listeners, urls


def _name(sock: socket.socket) -> str:
    address = sock.getsockname()
    return bind_address(*address[:2]) if sock.family in (socket.AF_INET, socket.AF_INET6) else f"unix:{address}"
