"""One connection that fails harms no other.

Hypercorn's connections share a nursery. So an error in its protocols, as some bytes behind a WebSocket upgrade
cause (hypercorn, issue 225), would end them all, and the server.
"""

from __future__ import annotations

import logging
import sys

from hypercorn.trio.tcp_server import TCPServer

__all__ = ["GuardedConnection", "guard_hypercorn"]

log = logging.getLogger(__name__)


class GuardedConnection(TCPServer):
    """Hypercorn's connection, which fails alone."""

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
