"""`EventStream`: the events of one run, whatever happens to the connections they come by."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from ..errors import (
    BackendUnavailable,
    ConnectionLost,
    EventsMissed,
    RequestError,
    RunNotFound,
    SessionBusy,
    ValidationError,
)
from ..protocol.ids import new_run_id
from ..protocol.lifecycle import StopReceipt
from ..protocol.message import Message
from .feed import Cut, Feed, Hole, Transport, is_terminal
from .nodes import Attempts, Nodes, Retries, elsewhere_perhaps

if TYPE_CHECKING:
    from .agent_client import AgentClient

__all__ = ["EventStream", "Opener"]


class Opener:
    """Gets hold of a run: starts it, at most once, or attaches to it, wherever it is.

    One is made for each start, attach or resume; its attempts are counted together.
    """

    def __init__(self, nodes: Nodes, transport: Transport, retries: Retries) -> None:
        self._nodes = nodes
        self._transport = transport
        self._attempts = Attempts(retries)

    async def attach(self, run_id: str, after: int, user_id: str | None, *, first: int | None = None) -> Feed:
        """Raises RequestError, ConnectionLost: as `Nodes.ask` does."""
        return await self._nodes.ask(
            lambda node: self._transport.attach(node, run_id, after, user_id), self._attempts, first=first
        )

    async def start(self, body: dict[str, Any], *, own_id: bool) -> Feed:
        """Start a run. Where an answer was lost, the run is looked for first, and started again only if no server
        knows it: its id sees to it that there are never two.

        `own_id`: the id was made by this client, and may be replaced where a server has used it up.
        """
        in_doubt = False
        while True:
            trouble: Exception | None = None
            for node in self._nodes.order():
                try:
                    feed = await self._transport.start(node, body)
                except Cut as cut:
                    trouble = cut
                    in_doubt = in_doubt or cut.sent
                    if cut.sent and (found := await self._find(body, node)) is not None:
                        return found
                except SessionBusy as busy:
                    if busy.active_run_id != body["id"]:
                        raise
                    # An attempt of ours that is believed lost has only just begun.
                    trouble = busy
                    if (found := await self._find(body, node)) is not None:
                        return found
                except RequestError as refusal:
                    if in_doubt and isinstance(refusal, ValidationError):
                        # The id was taken while we were looking: by the attempt that was believed lost.
                        return await self.attach(body["id"], -1, body.get("user_id"), first=node)
                    if not elsewhere_perhaps(refusal):
                        raise
                    if isinstance(refusal, BackendUnavailable) and own_id:
                        # Nothing was started, but the id may be spoken for (`claim_failed`).
                        body["id"] = new_run_id()
                    trouble = refusal
                else:
                    self._nodes.current = node
                    return feed
            assert trouble is not None  # noqa: S101  there is at least one node
            await self._attempts.pause(trouble, self._nodes)

    async def _find(self, body: Mapping[str, Any], node: int) -> Feed | None:
        try:
            return await self.attach(body["id"], -1, body.get("user_id"), first=node)
        except RunNotFound:
            return None


class EventStream:
    """An async iterator over the events of one run: dicts as they stand in the reference, each once, in order,
    the terminal one last. A connection that is cut is replaced, from the event after the last.

    One task reads. A read that is cancelled loses nothing. What iteration raises:

        EventsMissed: some events are gone; iterate again to go on after them.
        ConnectionLost: no connection could be had within the client's `retries`.
        RequestError: a server refuses to go on; by its class or `code`: the run is forgotten (`RunNotFound`), its
            events are (`stream_expired`), or another node has them (`elsewhere`) that the client was not told of.

    Attributes:
        run_id, session_id, user_id: which run; session and user are None where they are not known.
        response: the terminal event, None before it came.
    """

    def __init__(
        self, client: AgentClient, opener: Callable[[], Opener], feed: Feed, *, after: int, user_id: str | None
    ) -> None:
        self.run_id = feed.run_id
        self.session_id = feed.session_id
        self.user_id = user_id
        self.response: dict[str, Any] | None = None
        self._client = client
        self._opener = opener
        self._feed = feed
        self._received = after
        self._seen_any = False
        self._ready: deque[dict[str, Any] | Hole] = deque()
        self._over = False
        self._texts: list[str] = []
        self._silent: set[str] = set()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            await self._fill()
        item = self._ready.popleft()
        if isinstance(item, Hole):
            raise EventsMissed(item.start, item.stop)
        self._note(item)
        return item

    @property
    def text(self) -> str:
        """What the agent has said so far, without its reasoning and its tools."""
        return "".join(self._texts)

    async def wait(self) -> dict[str, Any]:
        """Read on to the terminal event, and give it.

        Raises:
            ConnectionLost: the stream was followed from its end on, so that there is none. And what reading raises.
        """
        async for _ in self:
            pass
        if self.response is None:
            raise ConnectionLost(f"run {self.run_id} has nothing more to tell")
        return self.response

    async def stop(self, *, wait: bool = False) -> StopReceipt:
        """Stop the run; with `wait`, answer when nothing of it runs any more. The stream goes on to its end."""
        try:
            receipt = await self._feed.stop(wait=wait)
        except Cut:
            receipt = None
        if receipt is None:
            receipt = await self._client._stop(None, self.user_id, self.run_id, wait=wait, first=self._feed.node)
        return receipt

    async def send_input(self, message: Message | Mapping[str, Any] | str) -> None:
        """Put a message into the run, for its `run.receive()`."""
        await self._client.send_input(self.run_id, message, user_id=self.user_id)

    async def aclose(self) -> None:
        """Leave. If the run has not ended, this is a disconnect, and the run's `on_disconnect` decides."""
        self._over = True
        await self._feed.aclose()

    async def _fill(self) -> None:
        try:
            batch = await self._feed.receive()
        except Cut as cut:
            await self._resume(cut)
            return
        except trio.EndOfChannel:
            self._over = True
            return
        for item in batch:
            if isinstance(item, Hole):
                self._ready.append(item)
                self._received = max(self._received, item.stop)
                continue
            number = item["sequence_number"]
            if number <= self._received:
                continue
            if number > self._received + 1:
                self._ready.append(Hole(self._received + 1, number - 1))
            self._received = number
            self._ready.append(item)
            self._over = is_terminal(item)

    async def _resume(self, cut: Cut) -> None:
        await self._feed.aclose()
        if cut.hopeless:
            raise ConnectionLost(f"run {self.run_id}: {cut}") from cut
        feed = await self._opener().attach(self.run_id, self._received, self.user_id, first=self._feed.node)
        self._feed = feed
        self.session_id = self.session_id or feed.session_id

    def _note(self, event: dict[str, Any]) -> None:
        kind = event.get("object")
        if kind == "content":
            if event.get("type") == "text" and event.get("delta") and event.get("msg_id") not in self._silent:
                self._texts.append(event.get("text") or "")
        elif kind == "message":
            if event.get("type") != "message":
                self._silent.add(str(event.get("id")))
        elif is_terminal(event):
            self.response = event
            self._texts = [
                part.get("text") or ""
                for message in event.get("output") or ()
                if message.get("type") == "message"
                for part in message.get("content") or ()
                if part.get("type") == "text"
            ]
