"""A reader of a run's events that can be cut at any byte, comes back, and remembers every byte it was shown."""

from __future__ import annotations

import json
import math
import random
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import h11
import trio

from .client import Broken
from .cluster import STATES, USER, Cluster, Node
from .history import History, Start, Terminal

__all__ = ["Reader", "check_same", "check_whole", "folded", "spoken"]

_FRAME = re.compile(rb"id: (\d+)\ndata: (\{[^\n]*\})")
_GAP = re.compile(rb'event: gap\ndata: \{"from":(\d+),"to":(\d+)\}')
_END = re.compile(rb'"object":"response","status":"(completed|failed|canceled|rejected)"')


@attrs.define(eq=False)
class Reader:
    """Frames are kept as they came, under their numbers and in the order in which they came."""

    history: History
    run: str = attrs.field(factory=lambda: f"r-{secrets.token_hex(8)}")
    frames: list[tuple[int, bytes]] = attrs.field(factory=list)
    times: list[float] = attrs.field(factory=list)
    gaps: list[tuple[int, int]] = attrs.field(factory=list)
    comments: int = 0
    odd: list[bytes] = attrs.field(factory=list)
    """What is neither a frame nor a comment."""
    connections: int = 0
    cuts: int = 0
    head: h11.Response | None = None
    body: bytes = b""
    """Of an answer that is no stream."""
    begun: trio.Event = attrs.field(factory=trio.Event)
    over: bool = False
    """The terminal event has come."""
    _stream: trio.SocketStream | None = None

    @property
    def last(self) -> int:
        return self.frames[-1][0] if self.frames else -1

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.frames]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(data) for _, data in self.frames]

    @property
    def end(self) -> dict[str, Any]:
        """The terminal event."""
        assert self.over, f"run {self.run} has not ended for this reader: {self.frames[-2:]}"
        event: dict[str, Any] = json.loads(self.frames[-1][1])
        return event

    async def start(
        self, node: Node, session: str, *, key: str | None = None, named: bool = True, **more: Any
    ) -> int:
        """`POST /process`, and read to the end or the cut. `key`: Idempotency-Key; not `named`: without ids."""
        cut = {
            name: more.pop(name)
            for name in ("after_bytes", "until", "before_read", "chunk", "window")
            if name in more
        }
        body = {
            "input": [{"role": "user", "content": "go"}],
            "user_id": USER,
            **({"session_id": session, "id": self.run} if named else {}),
            **more,
        }
        headers = {} if key is None else {"Idempotency-Key": key}
        asked_at = time.monotonic()

        def note(status: int) -> None:
            told = {} if self.head is None else dict(self.head.headers)
            if status != 200 and key is not None:
                return  # another with this key may have been taken
            self.run = told.get(b"x-run-id", self.run.encode()).decode()
            answered = Start(
                t0=asked_at,
                t1=time.monotonic(),
                run=self.run,
                session=told.get(b"x-session-id", session.encode()).decode(),
                node=node.name,
                status=status,
                allowed=(status,),
            )
            self.history.starts.append(answered)

        return await self._ask(node, "POST", "/process", json.dumps(body).encode(), headers, on_head=note, **cut)

    async def attach(self, node: Node, *, after: int | None = None, **cut: Any) -> int:
        """Go on behind the last frame, or behind `after`; the status of the answer."""
        told = self.last if after is None else after
        headers = {} if told < 0 else {"Last-Event-ID": str(told)}
        return await self._ask(node, "GET", f"/runs/{self.run}/stream", b"", headers, **cut)

    async def wait(self, node: Node) -> int:
        """`GET /runs/{id}/wait`; what it says is in `body`."""
        return await self._ask(node, "GET", f"/runs/{self.run}/wait", b"", {})

    async def _ask(
        self,
        node: Node,
        method: str,
        path: str,
        body: bytes,
        headers: dict[str, str],
        *,
        after_bytes: float = math.inf,
        until: Callable[[Reader], bool] | None = None,
        before_read: Callable[[Reader], Awaitable[object]] | None = None,
        chunk: int = 65536,
        window: int | None = None,
        on_head: Callable[[int], None] = lambda status: None,
    ) -> int:
        """`after_bytes`: the socket is closed when so many have come. `until`: it is when this holds after a frame.
        `before_read`: awaited before anything is read, `chunk` bytes at most; a small `window` keeps the kernel
        from reading ahead.
        """
        self.connections += 1
        http = h11.Connection(h11.CLIENT)
        fields = {
            "Host": "127.0.0.1",
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **headers,
        }
        out = http.send(h11.Request(method=method, target=path, headers=list(fields.items()))) or b""
        out += (http.send(h11.Data(data=body)) or b"") + (http.send(h11.EndOfMessage()) or b"")
        left, rest, status, streamed = after_bytes, bytearray(), 0, False
        sock = trio.socket.socket()
        if window is not None:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, window)
        try:
            await sock.connect(("127.0.0.1", node.port))
        except OSError as exc:
            sock.close()
            raise Broken("no connection") from exc
        stream = trio.SocketStream(sock)
        try:
            self._stream = stream
            await stream.send_all(out)
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    if left <= 0:
                        self.cuts += 1
                        return status
                    if before_read is not None:
                        await before_read(self)
                    piece = await stream.receive_some(int(min(left, chunk)))
                    left -= len(piece)
                    http.receive_data(piece)
                elif isinstance(event, h11.Response):
                    self.head, status = event, event.status_code
                    on_head(status)
                    streamed = dict(event.headers).get(b"content-type", b"").startswith(b"text/event-stream")
                elif isinstance(event, h11.Data) and not streamed:
                    self.body += bytes(event.data)
                elif isinstance(event, h11.Data):
                    looked = max(len(rest) - 1, 0)
                    rest += event.data
                    while (end := rest.find(b"\n\n", looked)) >= 0:
                        self._take(bytes(rest[:end]))
                        del rest[: end + 2]
                        looked = 0
                        if until is not None and until(self):
                            self.cuts += 1
                            return status
                else:
                    if rest:
                        self.odd.append(bytes(rest))
                    return status
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as exc:
            raise Broken("before the end of the answer") from exc
        finally:
            self._stream = None
            if stream.socket.fileno() >= 0:
                stream.socket.close()

    def hang_up(self) -> None:
        if self._stream is not None:
            self._stream.socket.close()

    def _take(self, frame: bytes) -> None:
        if found := _FRAME.fullmatch(frame):
            self.frames.append((int(found[1]), found[2]))
            self.times.append(time.monotonic())
            if ended := _END.search(found[2]):
                self.over = True
                code = (self.end["error"] or {}).get("code")
                self.history.terminals.append(
                    Terminal(t=time.monotonic(), run=self.run, state=STATES[ended[1].decode()], code=code)
                )
            self.begun.set()
        elif found := _GAP.fullmatch(frame):
            self.gaps.append((int(found[1]), int(found[2])))
        elif frame.startswith(b":"):
            self.comments += 1
        else:
            self.odd.append(frame)

    async def read_with_cuts(self, nodes: list[Node], cuts: int, size: int) -> None:
        """To the terminal event, over `cuts` cuts at random bytes of about `size`, each at any of the nodes."""
        for _ in range(cuts):
            if self.over:
                return
            await self.attach(random.choice(nodes), after_bytes=random.randint(1, max(2, 2 * size // cuts)))
        while not self.over:
            status = await self.attach(random.choice(nodes))
            assert status == 200, f"run {self.run} behind {self.last}: {status}"


def check_whole(cluster: Cluster, reader: Reader) -> None:
    """E1: each event once, in order, without holes, one terminal event, and that one last."""
    numbers = reader.numbers
    name = f"run {reader.run}, a reader with {reader.cuts} cuts"
    missing = sorted(set(range(max(numbers, default=-1) + 1)) - set(numbers))
    if missing or reader.gaps or not numbers:
        cluster.flaw("E1 lost", f"{name}: {missing[:10]} are missing, and gaps are {reader.gaps}")
    if len(numbers) != len(set(numbers)):
        cluster.flaw("E1 doubled", f"{name}: {[n for n in set(numbers) if numbers.count(n) > 1][:10]} came twice")
    if numbers != sorted(numbers):
        cluster.flaw("E1", f"{name}: out of order: {numbers}")
    ends = [number for number, data in reader.frames if _END.search(data)]
    if len(ends) != 1 or ends != numbers[-1:]:
        cluster.flaw("E1", f"{name}: terminal events {ends}, and the last one is {numbers[-1:]}")
    if reader.odd:
        cluster.flaw("E1", f"{name}: was sent {reader.odd[:3]}")


def check_same(cluster: Cluster, one: Reader, other: Reader) -> None:
    """Both were shown the same bytes."""
    if one.frames != other.frames:
        mine, theirs = dict(one.frames), dict(other.frames)
        differs = [number for number in sorted({*mine, *theirs}) if mine.get(number) != theirs.get(number)]
        shown = [(mine.get(number), theirs.get(number)) for number in differs[:2]]
        cluster.flaw("E1", f"run {one.run}: two readers were shown different events {differs[:10]}: {shown}")


def spoken(reader: Reader) -> str:
    """The text that was streamed."""
    return "".join(
        event.get("text", "") for event in reader.events if event["object"] == "content" and event["delta"]
    )


def folded(reader: Reader) -> list[dict[str, Any]]:
    """What a client holds who folds deltas into parts, and parts into messages, up to the end it was told.

    Each as its role, its type, and its parts; a text as the sum of its deltas.
    """
    messages: list[dict[str, Any]] = []
    for event in reader.events:
        if event["object"] == "message" and event["status"] == "in_progress":
            messages.append({"id": event["id"], "role": event["role"], "type": event["type"], "parts": []})
        elif event["object"] == "content":
            parts = messages[-1]["parts"]
            if len(parts) <= event["index"]:
                parts.append({"type": event["type"], "text": ""})
            part = parts[event["index"]]
            if event["delta"] and event["type"] == "text":
                part["text"] += event["text"]
            elif not event["delta"] and event["type"] != "text":
                part["data"] = event["data"]
    return messages
