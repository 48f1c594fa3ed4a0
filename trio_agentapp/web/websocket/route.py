"""The view of `/ws`: accepts a socket, serves it, and closes it with the right code."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import cast
from urllib.parse import urlsplit

import attrs
import trio
from quart.wrappers import Websocket

from ...limits import Rates
from ...protocol.exception_groups import leaves
from ...refusals import note_refusal
from ..run_access import RunAccess
from .socket import Close, Socket

__all__ = ["SUBPROTOCOL", "SocketRoute"]

log = logging.getLogger(__name__)

SUBPROTOCOL = "trio-agentapp.v1"

LIMITS = {1009: "body", 4408: "body_time"}
"""Close codes that mean that one limit was reached, with the name of the limit."""


@attrs.frozen(kw_only=True)
class SocketRoute:
    """Serves WebSockets.

    Args:
        max_message: bytes that a message from the client may have.
        init_timeout: seconds in which a client must authenticate, if the app asks for that.
        origins: other origins than the server's own whose web pages may connect.
        frames: limits the messages of each user, or of each address if there is no user. max_sockets: the most
            sockets that each of them may have open.
    """

    access: RunAccess
    max_message: int
    init_timeout: float
    origins: Collection[str] = ()
    frames: Rates
    max_sockets: int
    open_sockets: Counter[str] = attrs.field(factory=Counter)
    """The number of open sockets of each user or address."""
    draining: trio.Event = attrs.field(factory=trio.Event)
    """Set when the node accepts no new runs. A socket closes then as soon as it has no run left."""

    async def serve(self, websocket: Websocket) -> None:
        """Serve one socket until either side closes it."""
        proposed = websocket.requested_subprotocols
        await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in proposed else None)
        code, reason = 1000, ""
        try:
            check_origin(websocket, self.origins)
            socket = Socket(
                self.access,
                websocket,
                max_message=self.max_message,
                init_timeout=self.init_timeout,
                draining=self.draining,
                frames=self.frames,
                admitted=self._admitted,
            )
            await socket.run()
        except* Close as group:
            close = cast(Close, next(leaves(group)))
            code, reason = close.code, close.reason
        except* Exception:
            log.exception("a WebSocket failed")
            code, reason = 1011, "internal error"
        if code in LIMITS:
            note_refusal(LIMITS[code])
        await websocket.close(code, reason)

    @contextmanager
    def _admitted(self, principal: str | None) -> Iterator[None]:
        """Count a socket of `principal` inside this block. Raises Close: it has too many."""
        if principal is None:
            yield
            return
        if self.open_sockets[principal] >= self.max_sockets:
            note_refusal("sockets_per_user")
            raise Close(4429, f"more than {self.max_sockets} WebSockets of one user")
        self.open_sockets[principal] += 1
        try:
            yield
        finally:
            self.open_sockets[principal] -= 1
            if not self.open_sockets[principal]:
                del self.open_sockets[principal]


def check_origin(websocket: Websocket, allowed: Collection[str]) -> None:
    """Raise Close if the web page that connects has a foreign origin.

    Clients other than browsers send no `Origin`.
    """
    origin = websocket.headers.get("Origin")
    if origin is not None and origin not in allowed and not _is_own(origin, websocket.headers.get("Host", "")):
        raise Close(4403, "this origin is not allowed")


def _is_own(origin: str, host: str) -> bool:
    try:
        page, here = urlsplit(origin), urlsplit(f"//{host}")
        # The schemes are not compared, because a proxy may terminate TLS.
        default = {"http": 80, "https": 443}.get(page.scheme)
        own = (page.hostname, page.port or default) == (here.hostname, here.port or default)
    except ValueError:
        return False
    return own and page.hostname is not None
