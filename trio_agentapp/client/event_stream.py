"""`EventStream`: the events of one run, over one connection after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import trio

from ..errors import ConnectionLost, EventsMissed
from ..protocol.lifecycle import StopReceipt
from ..protocol.message import Message
from .failures import ConnectionFailed
from .http_api import HttpAPI
from .request_body import answer_message
from .run_opener import RunOpener
from .subscription import Gap, Subscription, is_terminal

__all__ = ["EventStream"]


class EventStream:
    """An async iterator over the events of one run. Events are dicts as the reference describes them, each once and
    in order, the terminal event last. If a connection fails, another one continues after the last event.

    One task reads. A read that is cancelled loses nothing. Iteration raises:

        EventsMissed: some events are no longer stored; iterate again to continue after them. ConnectionLost: no
        connection could be made within the client's `retries`. RequestError: a server refuses to continue. Its
        class or `code` says why: the record of the run has expired (`RunNotFound`), its events have expired
        (`stream_expired`), or they are on a node that is not among the base URLs (`elsewhere`).

    Attributes:
        run_id, session_id, user_id: the ids of the run, its session and its user. The last two are None if not
            known.
        response: the terminal event, None before it arrived.
    """

    def __init__(
        self, api: HttpAPI, opener: RunOpener, subscription: Subscription, *, after: int, user_id: str | None
    ) -> None:
        self.run_id = subscription.run_id
        self.session_id = subscription.session_id
        self.user_id = user_id
        self.response: dict[str, Any] | None = None
        self._api = api
        self._opener = opener
        self._subscription = subscription
        self._received = after
        self._ready: deque[dict[str, Any] | Gap] = deque()
        self._over = False
        self._texts: list[str] = []
        self._not_answers: set[str] = set()
        """Ids of messages whose text is not part of the answer."""

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            await self._fill()
        item = self._ready.popleft()
        if isinstance(item, Gap):
            raise EventsMissed(item.start, item.stop)
        self._note(item)
        return item

    @property
    def text(self) -> str:
        """The answer so far, without reasoning and tool calls."""
        return "".join(self._texts)

    async def wait(self) -> dict[str, Any]:
        """Read to the terminal event, and return it.

        Raises:
            ConnectionLost: the stream began after the terminal event. Also all that iteration raises.
        """
        async for _ in self:
            pass
        if self.response is None:
            raise ConnectionLost(f"run {self.run_id} has no further events")
        return self.response

    async def stop(self, *, wait: bool = False) -> StopReceipt:
        """Stop the run; with `wait`, return when nothing of it runs any more. The stream continues to its end."""
        try:
            receipt = await self._subscription.stop(wait=wait)
        except ConnectionFailed:
            receipt = None
        if receipt is None:
            first = self._subscription.node
            receipt = await self._api.stop(None, self.user_id, self.run_id, wait=wait, first=first)
        return receipt

    async def send_input(self, message: Message | Mapping[str, Any] | str) -> None:
        """Send a message to the run, which gets it from `run.receive()`."""
        await self._api.send_input(self.run_id, message, user_id=self.user_id)

    async def answer(self, question_id: str, value: Any) -> None:
        """Answer a question of the run: True or False for an approval, else a text or a JSON value.

        Raises:
            ValidationError: the question is not open. RunEnded: the run has ended.
        """
        await self.send_input(answer_message(question_id, value))

    async def aclose(self) -> None:
        """Stop reading. If the run has not ended, this is a disconnect, and the run's `on_disconnect` applies."""
        self._over = True
        await self._subscription.aclose()

    async def _fill(self) -> None:
        try:
            batch = await self._subscription.receive()
        except ConnectionFailed as failure:
            await self._resume(failure)
            return
        except trio.EndOfChannel:
            self._over = True
            return
        for item in batch:
            if isinstance(item, Gap):
                self._ready.append(item)
                self._received = max(self._received, item.stop)
                continue
            number = item["sequence_number"]
            if number <= self._received:
                continue
            if number > self._received + 1:
                self._ready.append(Gap(self._received + 1, number - 1))
            self._received = number
            self._ready.append(item)
            self._over = is_terminal(item)

    async def _resume(self, failure: ConnectionFailed) -> None:
        await self._subscription.aclose()
        if failure.permanent:
            raise ConnectionLost(f"run {self.run_id}: {failure}") from failure
        node = self._subscription.node
        self._subscription = await self._opener.attach(self.run_id, self._received, self.user_id, first=node)
        self.session_id = self.session_id or self._subscription.session_id

    def _note(self, event: dict[str, Any]) -> None:
        kind = event.get("object")
        if kind == "content":
            if event.get("type") == "text" and event.get("delta") and event.get("msg_id") not in self._not_answers:
                self._texts.append(event.get("text") or "")
        elif kind == "message":
            if event.get("type") != "message":
                self._not_answers.add(str(event.get("id")))
        elif is_terminal(event):
            self.response = event
            self._texts = [
                part.get("text") or ""
                for message in event.get("output") or ()
                if message.get("type") == "message"
                for part in message.get("content") or ()
                if part.get("type") == "text"
            ]
