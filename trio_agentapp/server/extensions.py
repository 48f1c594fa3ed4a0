"""Extensions of ASGI scopes: objects that the server passes to the code that handles a request."""

from __future__ import annotations

from typing import Any

from hypercorn.typing import Scope

__all__ = [
    "ABORT",
    "CLIENT_CERTIFICATE",
    "DIRECT_WRITER",
    "MESSAGES",
    "PEER",
    "SHUTDOWN_NOTICE",
    "WEBSOCKET_STREAM",
    "add_extension",
    "drop_extensions",
    "extension",
    "peer_of",
]

ABORT = "trio_agentapp.abort"
"""A function that closes the socket at once, also while a task is blocked on it. It does not block."""

CLIENT_CERTIFICATE = "trio_agentapp.client_certificate"
"""The verified certificate of the client as `SSLSocket.getpeercert` returns it, `{}` if it has none. It is missing
on connections on which the server does not ask for one."""

DIRECT_WRITER = "trio_agentapp.direct"
"""The `DirectWriter` of a response."""

MESSAGES = "trio_agentapp.messages"
"""The `Messages` of a request."""

PEER = "trio_agentapp.peer"
"""The address of the connection's peer, if `client` of the scope is the address that a proxy has sent."""

SHUTDOWN_NOTICE = "trio_agentapp.shutdown_notice"
"""The `ShutdownNotice` of a WebSocket."""

WEBSOCKET_STREAM = "trio_agentapp.websocket"
"""The `WebSocketStream` of a WebSocket."""


def add_extension(scope: Scope, name: str, value: object) -> None:
    extended: Any = scope
    extended["extensions"] = {**(extended.get("extensions") or {}), name: value}


def drop_extensions(scope: Scope) -> None:
    """Remove the extensions of a request that has ended. Most of them refer back to the scope, in a cycle."""
    extended: Any = scope
    extended["extensions"] = {}


def extension(scope: Scope, name: str) -> Any:
    """Return the extension `name` of a scope, or None if the server does not offer it."""
    extended: Any = scope
    return (extended.get("extensions") or {}).get(name)


def peer_of(scope: Scope) -> str | None:
    """Return the address that the connection of a request comes from: the nearest proxy, or the client."""
    known: Any = scope
    peer: str | None = extension(scope, PEER) or (known.get("client") or [None])[0]
    return peer
