"""One WebSocket to a node, and the runs on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import attrs
import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection
from wsproto.utilities import ProtocolError

from ..errors import AgentAppError, RequestError, RunNotFound, UnexpectedAnswer
from ..protocol.exception_groups import leaves
from ..protocol.lifecycle import StopReceipt
from .failures import ConnectionFailed
from .request_body import encoded
from .responses import error_of_problem, json_of, receipt_of
from .subscription import Gap, Subscription, is_terminal
from .websocket_connector import SUBPROTOCOL, WebSocketConnector, close_text, error_of_close, error_of_exception

__all__ = ["Connection", "WebSocketSubscription"]

WRITE_TIMEOUT = 20.0
"""Seconds that one write may take."""

MAX_UNREAD = 256 * 1024 * 1024
"""Unread bytes of all runs on one shared socket. The last events of a run repeat its answer, so four times the
largest answer does not mean that a reader is slow. Moving such a run would lose events that its server has sent
already and no longer keeps."""

CLOSE_TIMEOUT = 2.0
"""Seconds for the close handshake."""


class WebSocketSubscription(Subscription):
    """One run on a socket.

    Attributes:
        id: names the run in the messages of this socket.
        last: the number of the last event that arrived.
        began: set when the server has accepted or refused; then `refusal` says why it refused.
        moving: the scope in which the run moves to a socket of its own.
    """

    def __init__(
        self,
        connection: Connection,
        run_id: str,
        session_id: str | None,
        user_id: str | None,
        last: int = -1,
    ) -> None:
        super().__init__(connection.node, run_id, session_id)
        self.use(connection)
        self.refusal: AgentAppError | ConnectionFailed | None = None
        self.last = last
        self.user_id = user_id
        self.moving = trio.CancelScope()

    def use(self, connection: Connection) -> None:
        """Move the subscription to another socket, under a new id."""
        self.connection = connection
        self.id = connection.new_id()
        self.began = trio.Event()

    async def stop(self, *, wait: bool) -> StopReceipt | None:
        receipt = await self.connection.stop(self, wait=wait)
        if isinstance(receipt, RunNotFound):
            # The run is no longer on this socket.
            return None
        if isinstance(receipt, RequestError):
            raise receipt
        return receipt

    def finish(self, failure: ConnectionFailed | None = None) -> None:
        super().finish(failure)
        if not self.began.is_set():
            self.refusal = failure
            self.began.set()

    async def aclose(self) -> None:
        self.moving.cancel(reason="the reader of this run left")
        await self.connection.leave(self)


@attrs.define
class PendingReceipt:
    """The answer to a stop, for which the caller waits. None: it will not arrive."""

    arrived: trio.Event = attrs.field(factory=trio.Event)
    value: StopReceipt | RequestError | None = None

    def set(self, value: StopReceipt | RequestError | None) -> None:
        self.value = value
        self.arrived.set()


class Connection:
    """One WebSocket, the task that reads it, and the runs on it.

    Args:
        hand_over: called with a run whose reader is slow, after it was taken off this socket. None: the socket is
            for one run only; it waits for the reader, and closes with the run.
    """

    def __init__(
        self,
        connector: WebSocketConnector,
        node: int,
        *,
        hand_over: Callable[[WebSocketSubscription], None] | None,
    ) -> None:
        self.node = node
        self.subscriptions: dict[str, WebSocketSubscription] = {}
        self.over = False
        self._connector = connector
        self._hand_over = hand_over
        self._ready = False
        self._closed: trio.Event | None = None
        self._closing = trio.CancelScope()
        self._receipts: dict[str, PendingReceipt] = {}
        self._scope = trio.CancelScope()
        self._ids = itertools.count(1)
        self._ws: WebSocketConnection

    def new_id(self) -> str:
        return str(next(self._ids))

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Connect, and read until either side closes. Started when runs can be started.

        Raises, before it is started: ConnectionFailed, RequestError, UnexpectedAnswer.
        """
        end = ConnectionFailed("the socket was closed", sent=True)
        failure: ConnectionFailed | AgentAppError | None = None
        try:
            with self._scope:
                end = await self._connected(task_status)
        except* (
            ConnectionFailed,
            AgentAppError,
            OSError,
            trio.BrokenResourceError,
            HandshakeError,
            ProtocolError,
        ) as errors:
            # ProtocolError: a ping has arrived after this client's close frame, and wsproto refuses
            # trio-websocket's answer.
            failure = error_of_exception(next(leaves(errors)))
        finally:
            self.over = True
            self._closing.cancel(reason="no task reads the answer to a close frame")
            subscriptions, self.subscriptions = list(self.subscriptions.values()), {}
            for subscription in subscriptions:
                subscription.finish(failure if isinstance(failure, ConnectionFailed) else end)
            for receipt in self._receipts.values():
                receipt.set(None)
        if failure is not None and not self._ready:
            raise failure

    async def _connected(self, task_status: trio.TaskStatus[None]) -> ConnectionFailed:
        """Serve one socket. Returns how it ended."""
        with trio.CancelScope(deadline=trio.current_time() + self._connector.connect_timeout) as connecting:
            async with await self._connector.open_stream(self.node) as stream, trio.open_nursery() as nursery:
                self._ws = await self._connector.upgrade(self.node, stream, nursery)
                connecting.deadline = math.inf
                try:
                    if self._connector.needs_init:
                        await self.send({"type": "init"})
                    await self._receive_ready()
                    self._ready = True
                    task_status.started()
                    nursery.start_soon(self._ping)
                    end = await self._read()
                    if self._closed is not None:
                        # trio-websocket's reader receives the answer to this client's close frame, and ends with
                        # this block.
                        await self._closed.wait()
                    return end
                finally:
                    nursery.cancel_scope.cancel(reason="the socket is closed")
        raise ConnectionFailed("no connection in time", sent=False)

    async def _receive_ready(self) -> None:
        with trio.move_on_after(self._connector.silence):
            try:
                message = json_of(await self._ws.get_message())
            except ConnectionClosed as closed:
                raise error_of_close(closed.reason) from closed
            if not isinstance(message, dict) or message.get("type") != "ready":
                raise UnexpectedAnswer(f"the server does not use the protocol {SUBPROTOCOL}")
            return
        raise ConnectionFailed("no answer in time", sent=False)

    async def _ping(self) -> None:
        while True:
            await trio.sleep(self._connector.silence / 3)
            await self.send({"type": "ping"})

    async def _read(self) -> ConnectionFailed:
        """Read until the socket ends. Returns how it ended."""
        while True:
            with trio.move_on_after(self._connector.silence):
                try:
                    text = await self._ws.get_message()
                except ConnectionClosed as closed:
                    return ConnectionFailed(close_text(closed.reason), sent=True)
                try:
                    subscription = self._dispatch(json_of(text), len(text))
                except (UnexpectedAnswer, KeyError, TypeError, AttributeError):
                    return ConnectionFailed("the server sent an invalid message", sent=True, permanent=True)
                if subscription is not None and subscription.full:
                    await self._slow_down(subscription)
                continue
            return ConnectionFailed(f"nothing arrived for {self._connector.silence:g} s", sent=True)

    async def _slow_down(self, subscription: WebSocketSubscription) -> None:
        if self._hand_over is None:
            await subscription.wait_room()
        elif subscription.too_many or sum(each.size for each in self.subscriptions.values()) >= MAX_UNREAD:
            del self.subscriptions[subscription.id]
            self._hand_over(subscription)

    def _dispatch(self, message: dict[str, Any], size: int) -> WebSocketSubscription | None:
        """Handle one message. Returns the run that got an event and may now be full."""
        kind, id = message["type"], message.get("id")
        if kind == "stopped" and id in self._receipts:
            self._receipts.pop(id).set(receipt_of(message["receipt"]))
        subscription = self.subscriptions.get(id or "")
        if kind == "error":
            error = error_of_problem(message["error"], message["error"].get("retry_after"))
            if subscription is not None and not subscription.began.is_set():
                del self.subscriptions[subscription.id]
                subscription.refusal = error
                subscription.began.set()
            elif id in self._receipts:
                self._receipts.pop(id).set(error)
        if subscription is None:
            return None
        match kind:
            case "event":
                event = message["event"]
                subscription.last = event["sequence_number"]
                subscription.put([event], size)
                if not is_terminal(event):
                    return subscription
                self._end(subscription)
            case "gap":
                subscription.put([Gap(message["from"], message["to"])], size)
            case "started":
                subscription.run_id, subscription.session_id = message["run_id"], message["session_id"]
                subscription.began.set()
            case "done":
                # Without a state, the server has stopped sending before the run ended.
                ended = ConnectionFailed("the server ended the stream", sent=True)
                self._end(subscription, None if message["state"] else ended)
        return None

    def _end(self, subscription: WebSocketSubscription, failure: ConnectionFailed | None = None) -> None:
        del self.subscriptions[subscription.id]
        subscription.finish(failure)
        self.close_if_empty()

    async def aclose(self) -> None:
        """Send a close frame and wait for its answer. The task of `serve` must still be reading."""
        self._closed = trio.Event()
        try:
            with self._closing:
                self._closing.deadline = trio.current_time() + CLOSE_TIMEOUT
                await self._ws.aclose()
        finally:
            self._closed.set()

    def close_if_empty(self) -> None:
        if self._hand_over is None and not self.subscriptions:
            self._scope.cancel(reason="its run is over")

    async def stop(self, subscription: WebSocketSubscription, *, wait: bool) -> StopReceipt | RequestError | None:
        """Stop a run. None: use another way. Answers name only the run, so a run has one stop at a time."""
        if subscription.id not in self.subscriptions or subscription.id in self._receipts:
            await trio.lowlevel.checkpoint()
            return None
        receipt = self._receipts[subscription.id] = PendingReceipt()
        try:
            await self.send({"type": "stop", "id": subscription.id, "wait": wait})
            await receipt.arrived.wait()
        finally:
            self._receipts.pop(subscription.id, None)
        return receipt.value

    async def begin(self, subscription: WebSocketSubscription, message: dict[str, Any]) -> None:
        """Start or attach, and wait for the answer. Raises RequestError, ConnectionFailed."""
        self.subscriptions[subscription.id] = subscription
        try:
            await self.send(message)
            await subscription.began.wait()
        except BaseException:
            await self.leave(subscription)
            raise
        if subscription.refusal is not None:
            raise subscription.refusal

    async def leave(self, subscription: WebSocketSubscription) -> None:
        """Stop reading a run. If the message cannot be sent, the server sees the socket close."""
        if self.subscriptions.pop(subscription.id, None) is not None:
            subscription.finish()
            await self.send({"type": "detach", "id": subscription.id})
            self.close_if_empty()

    async def send(self, message: dict[str, Any]) -> None:
        """Send a message. Never raises for a broken socket: the task that reads it reports that."""
        with trio.move_on_after(WRITE_TIMEOUT, shield=True) as writing:
            try:
                await self._ws.send_message(encoded(message).decode())
            except ConnectionClosed:
                return
        if writing.cancelled_caught:
            # A part of the message may have been sent, so the socket cannot be used any more.
            self._scope.cancel(reason="the server does not read")
