"""One connection that fails harms no other.

Hypercorn's connections share a nursery. So an error in its protocols, as some bytes behind a WebSocket upgrade
cause (hypercorn, issue 225), would end them all, and the server.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIReceiveCallable, ASGISendCallable, ConnectionState, Scope

__all__ = ["ABORT", "GuardedConnection", "guard_hypercorn"]

log = logging.getLogger(__name__)


ABORT: Any = "trio_agentapp.abort"
"""The extension of an ASGI scope that closes the socket under whoever is blocked on it; does not block."""


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

    def close_socket(self) -> None:
        """Close the socket under whoever is blocked on it, by its own means or not at all."""
        stream: Any = self.stream
        getattr(stream, "transport_stream", stream).socket.close()

    async def run(self) -> None:
        try:
            await super().run()
        except* Exception:
            log.exception("A connection failed")


def guard_hypercorn() -> None:
    """Have the bare `hypercorn` command use it, too.

    Its worker takes the class from its module when it begins to listen, which is after the app's start-up; it
    offers no other way in.
    """
    worker = sys.modules.get("hypercorn.trio.run")
    if worker is not None:
        worker.TCPServer = GuardedConnection  # type: ignore[attr-defined]
