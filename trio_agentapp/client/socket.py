"""One WebSocket, and the runs on it."""

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
from ..protocol.lifecycle import StopReceipt
from .answers import error_of_problem, json_of, receipt_of
from .body import encoded
from .dialer import SUBPROTOCOL, Dialer, leaves, ours, refusal_of, told
from .feed import Cut, Feed, Hole, is_terminal

__all__ = ["Socket", "SocketFeed"]

SEND_TIMEOUT = 20.0
"""Seconds one write may take."""

MAX_WAITING = 256 * 1024 * 1024
"""Bytes on one shared socket that wait for their readers. The last events of a run repeat its answer, so four times
the largest answer is no lag; moving such a run would lose what its server has sent already and keeps no longer."""

CLOSE_TIMEOUT = 2.0
"""Seconds for closing in good order."""


class SocketFeed(Feed):
    """One run on a socket."""

    def __init__(self, socket: Socket, run_id: str, session_id: str | None) -> None:
        super().__init__(socket.node, run_id, session_id)
        self.socket = socket
        self.id = socket.new_id()
        self.began = trio.Event()
        self.refusal: AgentAppError | Cut | None = None
        self.last = -1
        self.user_id: str | None = None
        self.moving = trio.CancelScope()

    async def stop(self, *, wait: bool) -> StopReceipt | None:
        receipt = await self.socket.ask_stop(self, wait=wait)
        if isinstance(receipt, RunNotFound):
            # It has left this socket meanwhile.
            return None
        if isinstance(receipt, RequestError):
            raise receipt
        return receipt

    def finish(self, cut: Cut | None = None) -> None:
        super().finish(cut)
        if not self.began.is_set():
            self.refusal = cut
            self.began.set()

    async def aclose(self) -> None:
        self.moving.cancel(reason="the reader of this run left")
        await self.socket.leave(self)


@attrs.define
class Answer:
    """The answer to a stop, for which its caller waits. None: it will not come."""

    came: trio.Event = attrs.field(factory=trio.Event)
    value: StopReceipt | RequestError | None = None

    def give(self, value: StopReceipt | RequestError | None) -> None:
        self.value = value
        self.came.set()


class Socket:
    """One WebSocket, its reader, and the runs on it.

    Args:
        hand_over: called with a run whose reader lags, and which is no longer on this socket; None: the socket is
            for one run only, waits for its reader, and closes with it.
    """

    def __init__(self, dialer: Dialer, node: int, *, hand_over: Callable[[SocketFeed], None] | None) -> None:
        self.node = node
        self._hand_over = hand_over
        self.feeds: dict[str, SocketFeed] = {}
        self.over = False
        self._ready = False
        self._said_goodbye: trio.Event | None = None
        self._leaving = trio.CancelScope()
        self._stops: dict[str, Answer] = {}
        self._dialer = dialer
        self._scope = trio.CancelScope()
        self._ids = itertools.count(1)
        self._ws: WebSocketConnection

    def new_id(self) -> str:
        return str(next(self._ids))

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Connect, and read until either side closes. Ready when runs can be started.

        Raises, before it is ready: Cut, RequestError, UnexpectedAnswer.
        """
        cut = Cut("the socket was closed", sent=True)
        failure: Cut | AgentAppError | None = None
        try:
            with self._scope:
                cut = await self._connected(task_status)
        except* (Cut, AgentAppError, OSError, trio.BrokenResourceError, HandshakeError, ProtocolError) as errors:
            # ProtocolError: trio-websocket answers a ping that crosses our close, and falls over it.
            failure = ours(next(leaves(errors)))
        finally:
            self.over = True
            self._leaving.cancel(reason="the socket is closed")
            feeds, self.feeds = list(self.feeds.values()), {}
            for feed in feeds:
                feed.finish(failure if isinstance(failure, Cut) else cut)
            for answer in self._stops.values():
                answer.give(None)
        if failure is not None and not self._ready:
            raise failure

    async def _connected(self, task_status: trio.TaskStatus[None]) -> Cut:
        with trio.CancelScope(deadline=trio.current_time() + self._dialer.connect_timeout) as connecting:
            async with await self._dialer.open_stream(self.node) as stream, trio.open_nursery() as nursery:
                self._ws = await self._dialer.upgrade(self.node, stream, nursery)
                connecting.deadline = math.inf
                try:
                    await self._greet()
                    self._ready = True
                    task_status.started()
                    nursery.start_soon(self._ping)
                    cut = await self._read()
                    if self._said_goodbye is not None:
                        # The answer to it takes trio-websocket's own reader, which ends with this block.
                        await self._said_goodbye.wait()
                    return cut
                finally:
                    nursery.cancel_scope.cancel(reason="the socket is closed")
        raise Cut("no connection in time", sent=False)

    async def _greet(self) -> None:
        with trio.move_on_after(self._dialer.silence):
            try:
                message = json_of(await self._ws.get_message())
            except ConnectionClosed as closed:
                raise refusal_of(closed.reason) from closed
            if not isinstance(message, dict) or message.get("type") != "ready":
                raise UnexpectedAnswer("what answered does not speak " + SUBPROTOCOL)
            return
        raise Cut("no answer in time", sent=False)

    async def _ping(self) -> None:
        while True:
            await trio.sleep(self._dialer.silence / 3)
            await self.say({"type": "ping"})

    async def _read(self) -> Cut:
        while True:
            with trio.move_on_after(self._dialer.silence):
                try:
                    text = await self._ws.get_message()
                except ConnectionClosed as closed:
                    return Cut(told(closed.reason), sent=True)
                try:
                    feed = self._take(json_of(text), len(text))
                except (UnexpectedAnswer, KeyError, TypeError, AttributeError):
                    return Cut("the server sent something that is no message", sent=True, hopeless=True)
                if feed is not None and feed.full:
                    if self._hand_over is None:
                        await feed.wait_room()
                    elif feed.many or sum(each.weight for each in self.feeds.values()) >= MAX_WAITING:
                        del self.feeds[feed.id]
                        self._hand_over(feed)
                continue
            return Cut(f"nothing came for {self._dialer.silence:g} s", sent=True)

    def _take(self, message: dict[str, Any], weight: int) -> SocketFeed | None:
        """Give a message to whom it is for; which run got an event."""
        kind, id = message["type"], message.get("id")
        if kind == "stopped" and id in self._stops:
            self._stops.pop(id).give(receipt_of(message["receipt"]))
        feed = self.feeds.get(id or "")
        if kind == "error":
            error = error_of_problem(message["error"], message["error"].get("retry_after"))
            if feed is not None and not feed.began.is_set():
                del self.feeds[feed.id]
                feed.refusal = error
                feed.began.set()
            elif id in self._stops:
                self._stops.pop(id).give(error)
        if feed is None:
            return None
        match kind:
            case "event":
                event = message["event"]
                feed.last = event["sequence_number"]
                feed.put([event], weight)
                if is_terminal(event):
                    self._end(feed)
                    return None
                return feed
            case "gap":
                feed.put([Hole(message["from"], message["to"])], weight)
            case "started":
                feed.run_id, feed.session_id = message["run_id"], message["session_id"]
                feed.began.set()
            case "done":
                # Without a state the run was not followed to its end.
                self._end(feed, None if message["state"] else Cut("the server broke the stream off", sent=True))
        return None

    def _end(self, feed: SocketFeed, cut: Cut | None = None) -> None:
        del self.feeds[feed.id]
        feed.finish(cut)
        self.close_if_empty()

    async def aclose(self) -> None:
        """Close in good order, while the task of `serve` still reads."""
        self._said_goodbye = trio.Event()
        try:
            with self._leaving:
                self._leaving.deadline = trio.current_time() + CLOSE_TIMEOUT
                await self._ws.aclose()
        finally:
            self._said_goodbye.set()

    def close_if_empty(self) -> None:
        if self._hand_over is None and not self.feeds:
            self._scope.cancel(reason="its run is over")

    async def ask_stop(self, feed: SocketFeed, *, wait: bool) -> StopReceipt | RequestError | None:
        """Stop a run; None: this cannot be told here. Answers bear a run's id only, so one at a time is asked."""
        if feed.id not in self.feeds or feed.id in self._stops:
            await trio.lowlevel.checkpoint()
            return None
        answer = self._stops[feed.id] = Answer()
        try:
            await self.say({"type": "stop", "id": feed.id, "wait": wait})
            await answer.came.wait()
        finally:
            self._stops.pop(feed.id, None)
        return answer.value

    async def begin(self, feed: SocketFeed, message: dict[str, Any]) -> None:
        """Start or attach, and wait for the answer. Raises RequestError, Cut."""
        self.feeds[feed.id] = feed
        try:
            await self.say(message)
            await feed.began.wait()
        except BaseException:
            await self.leave(feed)
            raise
        if feed.refusal is not None:
            raise feed.refusal

    async def leave(self, feed: SocketFeed) -> None:
        """The reader of a run leaves it. A server that does not hear of it will see the socket close."""
        if self.feeds.pop(feed.id, None) is not None:
            feed.finish()
            await self.say({"type": "detach", "id": feed.id})
            self.close_if_empty()

    async def say(self, message: dict[str, Any]) -> None:
        """Never fails: of a socket that is cut its reader tells."""
        with trio.move_on_after(SEND_TIMEOUT, shield=True) as writing:
            try:
                await self._ws.send_message(encoded(message).decode())
            except ConnectionClosed:
                return
        if writing.cancelled_caught:
            # Half a message may be out.
            self._scope.cancel(reason="the server does not read")
