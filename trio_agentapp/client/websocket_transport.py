"""Runs over WebSocket, by trio-websocket: many runs on one socket (`docs/reference/websocket.md`).

Reading a socket cannot pause for one run alone. So a run whose reader is slow moves to a socket of its own, which
can pause without delaying other runs.
"""

from __future__ import annotations

from typing import Any

import trio

from ..errors import AgentAppError
from ..protocol.trace_context import trace_headers
from .failures import ConnectionFailed
from .subscription import Subscription
from .transport import Transport
from .websocket_connection import Connection, WebSocketSubscription
from .websocket_connector import WebSocketConnector

__all__ = ["WebSocketTransport"]

MAX_RUNS = 500
"""Runs on one socket, before another one is opened: half of the limit of a server."""


class WebSocketTransport(Transport):
    """Keeps one socket to each node, and opens another if `MAX_RUNS` are on it.

    Args:
        nursery: the owner of the tasks that serve the sockets.
    """

    def __init__(self, connector: WebSocketConnector, nursery: trio.Nursery) -> None:
        self._connector = connector
        self._nursery = nursery
        self._shared: list[Connection] = []
        self._opening = trio.Lock()

    async def start(self, node: int, body: dict[str, Any]) -> Subscription:
        connection = await self._connection(node)
        subscription = WebSocketSubscription(connection, body["id"], body["session_id"], body.get("user_id"))
        await connection.begin(subscription, _start(subscription.id, body))
        return subscription

    async def attach(self, node: int, run_id: str, after: int, user_id: str | None) -> Subscription:
        connection = await self._connection(node)
        subscription = WebSocketSubscription(connection, run_id, None, user_id, after)
        await connection.begin(subscription, _attach(subscription))
        return subscription

    async def aclose(self) -> None:
        async with trio.open_nursery() as nursery:
            for connection in self._shared:
                if not connection.over:
                    nursery.start_soon(connection.aclose)

    async def _connection(self, node: int) -> Connection:
        async with self._opening:
            self._shared = [each for each in self._shared if not each.over]
            for connection in self._shared:
                if connection.node == node and len(connection.subscriptions) < MAX_RUNS:
                    return connection
            connection = Connection(self._connector, node, hand_over=self._hand_over)
            await self._nursery.start(connection.serve, name=f"socket to {self._connector.nodes.urls[node]}")
            self._shared.append(connection)
            return connection

    def _hand_over(self, subscription: WebSocketSubscription) -> None:
        self._nursery.start_soon(self._move, subscription, name=f"moving run {subscription.run_id}")

    async def _move(self, subscription: WebSocketSubscription) -> None:
        """Move a run to a socket of its own.

        It leaves the old one afterwards, so that the run always has a reader.
        """
        shared, old_id = subscription.connection, subscription.id
        own = Connection(self._connector, subscription.node, hand_over=None)
        with subscription.moving:
            try:
                await self._nursery.start(own.serve, name=f"socket of run {subscription.run_id}")
                subscription.use(own)
                await own.begin(subscription, _attach(subscription))
            except ConnectionFailed as failure:
                subscription.finish(failure)
            except AgentAppError as error:
                subscription.finish(ConnectionFailed(str(error), sent=True))
        own.close_if_empty()
        await shared.send({"type": "detach", "id": old_id})


def _start(id: str, request: dict[str, Any]) -> dict[str, Any]:
    message = {"type": "start", "id": id, "request": request}
    # The runs of one socket may belong to several traces.
    if traceparent := trace_headers().get("traceparent"):
        message["traceparent"] = traceparent
    return message


def _attach(subscription: WebSocketSubscription) -> dict[str, Any]:
    message: dict[str, Any] = {"type": "attach", "id": subscription.id, "run_id": subscription.run_id}
    if subscription.last >= 0:
        message["starting_after"] = subscription.last
    if subscription.user_id is not None:
        message["user_id"] = subscription.user_id
    return message
