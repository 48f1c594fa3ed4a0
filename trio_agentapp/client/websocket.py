"""Runs over WebSocket, by trio-websocket: many on one socket.

A socket cannot be held back for one run alone. So a run whose reader lags moves to a socket of its own, where
holding back meets only itself.
"""

from __future__ import annotations

from typing import Any

import trio

from ..errors import AgentAppError
from .dialer import Dialer
from .feed import Cut, Feed, Transport
from .socket import Socket, SocketFeed

__all__ = ["SocketTransport"]

MAX_RUNS = 500
"""Runs on one socket, before another is opened; half of what a server takes."""


class SocketTransport(Transport):
    """One socket for each node, as long as that takes all runs.

    Args:
        nursery: where the tasks that serve the sockets live.
    """

    def __init__(self, dialer: Dialer, nursery: trio.Nursery) -> None:
        self._dialer = dialer
        self._nursery = nursery
        self._shared: list[Socket] = []
        self._opening = trio.Lock()

    async def start(self, node: int, body: dict[str, Any]) -> Feed:
        socket = await self._socket(node)
        feed = SocketFeed(socket, body["id"], body["session_id"])
        feed.user_id = body.get("user_id")
        await socket.begin(feed, {"type": "start", "id": feed.id, "request": body})
        return feed

    async def attach(self, node: int, run_id: str, after: int, user_id: str | None) -> Feed:
        socket = await self._socket(node)
        feed = SocketFeed(socket, run_id, None)
        feed.last, feed.user_id = after, user_id
        await socket.begin(feed, _attach(feed))
        return feed

    async def aclose(self) -> None:
        async with trio.open_nursery() as nursery:
            for socket in self._shared:
                if not socket.over:
                    nursery.start_soon(socket.aclose)

    async def _socket(self, node: int) -> Socket:
        async with self._opening:
            self._shared = [socket for socket in self._shared if not socket.over]
            for socket in self._shared:
                if socket.node == node and len(socket.feeds) < MAX_RUNS:
                    return socket
            socket = Socket(self._dialer, node, hand_over=self._hand_over)
            await self._nursery.start(socket.serve, name=f"socket to {self._dialer.url(node)}")
            self._shared.append(socket)
            return socket

    def _hand_over(self, feed: SocketFeed) -> None:
        self._nursery.start_soon(self._move, feed, name=f"moving run {feed.run_id}")

    async def _move(self, feed: SocketFeed) -> None:
        """Give a run a socket of its own. It leaves the old one afterwards, so that it is watched throughout."""
        shared, old_id = feed.socket, feed.id
        own = Socket(self._dialer, feed.node, hand_over=None)
        with feed.moving:
            try:
                await self._nursery.start(own.serve, name=f"socket of run {feed.run_id}")
                feed.socket, feed.id, feed.began = own, own.new_id(), trio.Event()
                await own.begin(feed, _attach(feed))
            except (Cut, AgentAppError) as error:
                feed.finish(error if isinstance(error, Cut) else Cut(str(error), sent=True))
        own.close_if_empty()
        await shared.say({"type": "detach", "id": old_id})


def _attach(feed: SocketFeed) -> dict[str, Any]:
    message: dict[str, Any] = {"type": "attach", "id": feed.id, "run_id": feed.run_id}
    if feed.last >= 0:
        message["starting_after"] = feed.last
    if feed.user_id is not None:
        message["user_id"] = feed.user_id
    return message
