"""One connection to one server: sends bytes, receives replies."""

from __future__ import annotations

from typing import Any

import attrs
import trio
from redis.exceptions import InvalidResponse

from .errors import LinkDown
from .packing import Command, pack
from .replies import MISSING, new_reader

__all__ = ["Connection", "ServerInfo", "reason_of"]

READ_SIZE = 65_536
"""Bytes read at a time: the usual size of the system's receive buffer."""

BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.frozen(kw_only=True)
class ServerInfo:
    """Facts about the server, read when the connection was made. None: the user has no permission to read it."""

    address: str
    run_id: str | None = None
    """Changes with every start of the server (INFO server)."""
    uptime: float | None = None
    """Whole seconds since that start, when the connection was made."""
    version: str | None = None
    """The version of Redis with which the server reports to be compatible."""
    connected_at: float = attrs.field(factory=trio.current_time)
    """When the connection was made, on Trio's clock."""


class Connection:
    """A connection by RESP2, which all servers support. `server` is set when the log-in is done."""

    server: ServerInfo

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._reader = new_reader()

    async def send(self, data: bytes) -> None:
        """Send bytes. Raises LinkDown. After a cancelled send, close the connection: a part may have been sent."""
        try:
            await self.stream.send_all(data)
        except BROKEN as error:
            raise LinkDown(f"sending failed: {reason_of(error)}", maybe_executed=True) from error

    async def receive(self) -> list[Any]:
        """Wait for at least one whole reply or push, and return all that have arrived.

        Error replies are returned as exceptions, not raised. A cancelled call loses nothing.

        Raises:
            LinkDown: the connection broke, or the bytes are not RESP.
        """
        while True:
            # The reader is empty here: all replies are taken out after each feed.
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
                # TypeError: a map with a key that Python cannot hash. The bytes after it cannot be parsed.
                raise LinkDown(f"the server sent what cannot be read: {error}", maybe_executed=True) from error
            if replies:
                return replies

    async def exchange(self, *commands: Command) -> list[Any]:
        """Send `commands` and return their replies. Only for the log-in, when the connection has no other user."""
        await self.send(b"".join(map(pack, commands)))
        replies: list[Any] = []
        while len(replies) < len(commands):
            replies += await self.receive()
        return replies

    async def aclose(self) -> None:
        """Close at once, without notifying the server."""
        await trio.aclose_forcefully(self.stream)


def reason_of(error: BaseException) -> str:
    """Return the text of the original error, which Trio may have wrapped."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(sorted({reason_of(inner) for inner in error.exceptions}))
    return str(error) or type(error).__name__
