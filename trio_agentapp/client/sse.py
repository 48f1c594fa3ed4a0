"""Runs over HTTP: Server-Sent Events, by httpx."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import httpx
import trio

from ..errors import UnexpectedAnswer
from .answers import error_of_answer, json_of, translated
from .body import encoded
from .feed import Batch, Cut, Feed, Hole, Transport, is_terminal
from .nodes import Nodes

__all__ = ["Frames", "SSETransport"]

MAX_FRAME = 256 * 1024 * 1024
"""Bytes of one frame. The last event of a run repeats its whole output, so frames can be large."""

CLOSE_TIMEOUT = 5.0
"""Seconds an answer has to end properly after its last event, so that its connection can be used again."""


class Frames:
    """Event stream in, events out (the format: WHATWG HTML, section 9.2).

    Each byte is looked at once, however many pieces an event comes in.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0
        self._half = b""

    def feed(self, data: bytes) -> Batch:
        """The events that are whole by now. Raises UnexpectedAnswer for what is no event of a run."""
        data, self._half = self._half + data, b""
        if b"\r" in data:
            if data.endswith(b"\r"):
                # Perhaps half of a CRLF.
                data, self._half = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._rest += data
        end = self._rest.rfind(b"\n\n", max(self._searched - 1, 0))
        frames: list[bytes] = []
        if end >= 0:
            frames = bytes(self._rest[:end]).split(b"\n\n")
            del self._rest[: end + 2]
        self._searched = len(self._rest)
        if self._searched > MAX_FRAME:
            raise UnexpectedAnswer(f"the server sent a frame of more than {MAX_FRAME} bytes")
        return [event for frame in frames if (event := _event(frame)) is not None]


def _event(frame: bytes) -> dict[str, Any] | Hole | None:
    data: list[bytes] = []
    name = b""
    for line in frame.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    if not data or data == [b"[DONE]"]:
        return None
    event = json_of(b"\n".join(data))
    if name == b"gap" and isinstance(event, dict):
        return Hole(int(event["from"]), int(event["to"]))
    if name or not isinstance(event, dict) or not isinstance(event.get("sequence_number"), int):
        raise UnexpectedAnswer("the server sent something that is no event of a run")
    return event


class ResponseFeed(Feed):
    """What one answer brings."""

    def __init__(self, node: int, run_id: str, session_id: str | None) -> None:
        super().__init__(node, run_id, session_id)
        self.scope = trio.CancelScope()
        self.closed = trio.Event()

    async def aclose(self) -> None:
        self.scope.cancel(reason="the reader of this run left")
        await self.closed.wait()


class SSETransport(Transport):
    """Each run has a connection of its own.

    Args:
        http: its read time-out is the silence after which a stream counts as cut.
        nursery: where the tasks that read live.
    """

    def __init__(self, nodes: Nodes, http: httpx.AsyncClient, nursery: trio.Nursery, *, path: str) -> None:
        self._nodes = nodes
        self._http = http
        self._nursery = nursery
        self._path = path

    async def start(self, node: int, body: dict[str, Any]) -> Feed:
        request = self._http.build_request(
            "POST",
            self._nodes.urls[node] + self._path,
            content=encoded({**body, "stream": True}),
            headers={"Content-Type": "application/json", "Accept": "text/event-stream"},
        )
        feed = ResponseFeed(node, body["id"], body["session_id"])
        await self._nursery.start(self._pump, request, feed, name=f"events of run {feed.run_id}")
        return feed

    async def attach(self, node: int, run_id: str, after: int, user_id: str | None) -> Feed:
        headers = {"Accept": "text/event-stream"}
        if after >= 0:
            headers["Last-Event-ID"] = str(after)
        request = self._http.build_request(
            "GET",
            f"{self._nodes.urls[node]}/runs/{quote(run_id, safe='')}/stream",
            params={} if user_id is None else {"user_id": user_id},
            headers=headers,
        )
        feed = ResponseFeed(node, run_id, None)
        await self._nursery.start(self._pump, request, feed, name=f"events of run {run_id}")
        return feed

    async def _pump(self, request: httpx.Request, feed: ResponseFeed, task_status: trio.TaskStatus[None]) -> None:
        """Carry a stream into its feed. Ready when the server has accepted; refusals come out before."""
        started = False
        cut: Cut | None = None
        try:
            with feed.scope:
                response = await self._http.send(request, stream=True)
                try:
                    await self._check(response, feed)
                    task_status.started()
                    started = True
                    cut = await self._read(response, feed)
                finally:
                    with trio.CancelScope(shield=True):
                        await response.aclose()
        except httpx.TransportError as error:
            cut = translated(error)
            if not started:
                raise cut from error
        finally:
            feed.finish(cut)
            feed.closed.set()

    async def _check(self, response: httpx.Response, feed: Feed) -> None:
        if response.status_code == 204:
            return
        if response.status_code != 200:
            await response.aread()
            raise error_of_answer(response)
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            raise UnexpectedAnswer(f"{response.url} answered with {kind or 'no type'}, not with an event stream")
        feed.run_id = response.headers.get("x-run-id", feed.run_id)
        session = response.headers.get("x-session-id")
        if session is not None and feed.session_id is None:
            feed.session_id = unquote(session)

    async def _read(self, response: httpx.Response, feed: Feed) -> Cut | None:
        """Read to the end of the answer; how it was cut, if the run's last event did not come."""
        if response.status_code == 204:
            return None
        frames = Frames()
        over = False
        with trio.CancelScope() as closing:
            async for chunk in response.aiter_raw():
                try:
                    batch = [] if over else frames.feed(chunk)
                except UnexpectedAnswer as error:
                    return Cut(str(error), sent=True, hopeless=True)
                if not batch:
                    continue
                feed.put(batch, len(chunk))
                last = batch[-1]
                if isinstance(last, dict) and is_terminal(last):
                    over = True
                    feed.finish()
                    closing.deadline = trio.current_time() + CLOSE_TIMEOUT
                elif feed.full:
                    await feed.wait_room()
        return None if over else Cut("the connection was closed before the run had ended", sent=True)
