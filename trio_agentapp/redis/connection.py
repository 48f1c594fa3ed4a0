"""One connection to one server: bytes out, replies in."""

from __future__ import annotations

from typing import Any

import attrs
import hiredis
import trio
from redis.exceptions import InvalidResponse

from .errors import LinkDown
from .packing import Command, pack
from .replies import MISSING, new_reader

__all__ = ["Connection", "ServerInfo", "reason_of"]

READ_SIZE = 65_536
"""Bytes asked of the system at a time: its usual receive buffer holds no more at first."""

BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.frozen(kw_only=True)
class ServerInfo:
    """What the server told about itself at the start of the connection; None: it was not allowed to."""

    address: str
    protocol: int
    run_id: str | None = None
    """Changes with every start of the server (INFO server)."""
    uptime: float | None = None
    """Whole seconds since that start, when the connection was made."""
    version: str | None = None
    """The Redis version that the server says it is compatible with."""
    connected_at: float = attrs.field(factory=trio.current_time)
    """On Trio's clock."""


class Connection:
    """A stream that speaks RESP. `server` is known once the handshake is done."""

    server: ServerInfo

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._reader = new_reader()

    async def send(self, data: bytes) -> None:
        """Raises LinkDown. A cancelled send leaves the connection useless: close it then."""
        try:
            await self.stream.send_all(data)
        except BROKEN as error:
            raise LinkDown(f"sending failed: {reason_of(error)}", maybe_executed=True) from error

    async def receive(self) -> list[Any]:
        """Wait for at least one whole reply or push, and give all that have arrived.

        Error replies are given as exceptions, not raised. Raises LinkDown when the connection broke, or what it
        carries is not RESP. May be cancelled at any time: it loses nothing.
        """
        while True:
            # A feed is always followed by reading all of it, so nothing is left in the reader on entry.
            try:
                data = await self.stream.receive_some(READ_SIZE)
            except BROKEN as error:
                raise LinkDown(f"receiving failed: {reason_of(error)}", maybe_executed=True) from error
            if not data:
                raise LinkDown("the server closed the connection", maybe_executed=True)
            replies = []
            try:
                self._reader.feed(bytes(data))
                while (reply := self._reader.gets()) is not MISSING:
                    replies.append(reply)
            except (InvalidResponse, TypeError) as error:
                # TypeError: a map with a key that Python cannot hash. What follows could not be told apart.
                raise LinkDown(f"the server sent what cannot be read: {error}", maybe_executed=True) from error
            if replies:
                return replies

    async def exchange(self, *commands: Command) -> list[Any]:
        """Send `commands` and wait for their replies; only for a connection that nobody else uses yet."""
        await self.send(b"".join(map(pack, commands)))
        replies: list[Any] = []
        while len(replies) < len(commands):
            replies += [reply for reply in await self.receive() if not isinstance(reply, hiredis.PushNotification)]
        return replies

    async def aclose(self) -> None:
        """Close at once, without a word to the server."""
        await trio.aclose_forcefully(self.stream)


def reason_of(error: BaseException) -> str:
    """The system's own words, where Trio wrapped them."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(sorted({reason_of(inner) for inner in error.exceptions}))
    return str(error) or type(error).__name__
