"""Scenarios of WebSockets: cut hard at random bytes, and gone on with from the last whole event, at any node."""

from __future__ import annotations

import itertools
import json
import random
import struct
import time
from collections.abc import Callable
from typing import Any

import attrs
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage

from .client import Broken
from .cluster import TIMEOUT, USER, Cluster, Node
from .history import Start
from .load import repeat
from .reader import Reader, check_same, check_whole
from .streams import EVENTS, check_after_the_end

__all__ = ["shared_sockets_cut", "sockets_cut"]

SIZE = 230
"""Bytes of an event of `count` in its frame; a little more, in truth, so that the cuts all come before the end."""

SIDE_BY_SIDE = 20

ON_A_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: what was sent is forgotten, and the peer gets a reset."""


@attrs.define(eq=False)
class Socket:
    """Runs that are read side by side, on one connection to `/ws` at a time."""

    cluster: Cluster
    readers: list[Reader]
    started: set[str] = attrs.field(factory=set)
    """Runs that some connection has been told of."""
    cuts: int = 0
    broken_off: int = 0
    """Runs that were `done` before their end: to be attached again."""

    @property
    def left(self) -> list[Reader]:
        return [reader for reader in self.readers if not reader.over]

    async def start(self, node: Node, sessions: list[str], *, after_bytes: float, **more: Any) -> None:
        """Start all the runs on one connection; `after_bytes` are counted once each has been told of."""
        said = {
            f"s{number}": {
                "type": "start",
                "request": {
                    "input": [{"role": "user", "content": "go"}],
                    "user_id": USER,
                    "session_id": session,
                    "id": reader.run,
                    **more,
                },
            }
            for number, (reader, session) in enumerate(zip(self.readers, sessions, strict=True))
        }
        asked_at = time.monotonic()
        await self._talk(node, said, self.readers, after_bytes, counted=lambda: len(self.started) == len(said))
        for reader, session in zip(self.readers, sessions, strict=True):
            self.cluster.history.starts.append(
                Start(
                    t0=asked_at,
                    t1=time.monotonic(),
                    run=reader.run,
                    session=session,
                    node=node.name,
                    status=200 if reader.run in self.started else 0,
                )
            )

    async def attach(self, node: Node, *, after_bytes: float = float("inf")) -> None:
        """Go on with the runs that are not over, each behind its last event."""
        readers = self.left
        said = {
            f"a{number}": {
                "type": "attach",
                "run_id": reader.run,
                "user_id": USER,
                **({} if reader.last < 0 else {"starting_after": reader.last}),
            }
            for number, reader in enumerate(readers)
        }
        await self._talk(node, said, readers, after_bytes)

    async def read_to_the_end(self, nodes: list[Node]) -> None:
        while self.left:
            await self.attach(random.choice(nodes))

    async def _talk(
        self,
        node: Node,
        said: dict[str, dict[str, Any]],
        readers: list[Reader],
        after_bytes: float,
        counted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Until all is `done`, or until so many bytes have come: then the TCP connection is closed hard."""
        by_id = dict(zip(said, readers, strict=True))
        peer = WSConnection(ConnectionType.CLIENT)
        left, text, heard = after_bytes, "", 0
        for reader in readers:
            reader.connections += 1
        async with await trio.open_tcp_stream("127.0.0.1", node.port) as stream:
            await stream.send_all(
                peer.send(Request(host="127.0.0.1", target="/ws", subprotocols=["trio-agentapp.v1"]))
            )
            while left > 0:
                counting = counted()
                piece = await stream.receive_some(int(min(left, 65536)) if counting else 1024)
                if not piece:
                    raise Broken("before the end of the socket")
                left -= len(piece) if counting else 0
                peer.receive_data(piece)
                for event in peer.events():
                    if isinstance(event, AcceptConnection):
                        words = [json.dumps({"id": id, **message}) for id, message in said.items()]
                        await stream.send_all(b"".join(peer.send(TextMessage(data=word)) for word in words))
                    elif isinstance(event, TextMessage):
                        text += event.data
                        if event.message_finished:
                            self._hear(text, first=not heard, by_id=by_id)
                            text, heard = "", heard + 1
                            if not by_id:
                                await stream.send_all(peer.send(CloseConnection(code=1000)))
                                return
                    elif isinstance(event, Ping):
                        await stream.send_all(peer.send(event.response()))
                    else:
                        raise Broken(f"{node.name} said {event!r}")
            self.cuts += 1
            for reader in readers:
                reader.cuts += 1
            if random.random() < 0.5:
                stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, ON_A_RESET)

    def _hear(self, text: str, *, first: bool, by_id: dict[str, Reader]) -> None:
        """Put a message to the run that it is of; `by_id` loses the runs that are done."""
        message = json.loads(text)
        kind, id = message["type"], message.get("id")
        reader = by_id.get(id, self.readers[0])
        if first or id not in by_id:
            if not first or message != {"type": "ready"}:
                reader.odd.append(text.encode())
        elif kind == "started" and message["run_id"] == reader.run:
            self.started.add(reader.run)
        elif kind == "event":
            # Kept as the bytes that came, under their number, just as a reader of SSE keeps them.
            before = f'{{"type":"event","id":"{id}","event":'
            data = text.removeprefix(before).removesuffix("}")
            reader._take(f"id: {message['event']['sequence_number']}\ndata: {data}".encode())
        elif kind == "gap":
            reader.gaps.append((message["from"], message["to"]))
        elif kind == "done":
            del by_id[id]
            self.broken_off += message["state"] is None
            if message["state"] != ("FINISHED" if reader.over else None):
                reader.odd.append(text.encode())
        elif kind == "error":
            raise AssertionError(f"run {reader.run} behind {reader.last}: {text}")
        else:
            reader.odd.append(text.encode())


async def sockets_cut(cluster: Cluster, runs: int) -> dict[str, float]:
    """Each run is started on a socket that is cut 5 to 20 times, and read without a cut on another beside it."""
    return await cut_all(cluster, runs, side_by_side=1)


async def shared_sockets_cut(cluster: Cluster, sockets: int) -> dict[str, float]:
    """The same for 20 runs side by side on one socket: all are attached again on the next."""
    return await cut_all(cluster, sockets, side_by_side=SIDE_BY_SIDE)


async def cut_all(cluster: Cluster, trials: int, *, side_by_side: int) -> dict[str, float]:
    cuts: list[int] = []
    broken_off = 0

    async def trial(cluster: Cluster, _session: str) -> None:
        nonlocal broken_off
        cut = Socket(cluster, [Reader(cluster.history) for _ in range(side_by_side)])
        whole = Socket(cluster, [Reader(cluster.history, reader.run) for reader in cut.readers])
        # Otherwise nobody is there between the cuts, and the run lives by its `on_disconnect` alone.
        beside = random.random() < 0.75

        async def read_whole() -> None:
            while len(cut.started) < side_by_side:
                await trio.sleep(0.005)
            await whole.read_to_the_end(cluster.nodes)

        with trio.move_on_after(2 * TIMEOUT) as scope:
            async with trio.open_nursery() as nursery:
                if beside:
                    nursery.start_soon(read_whole)
                await read_cut(cut)
            if not beside:
                await read_whole()
        if scope.cancelled_caught:
            shown = {reader.run: reader.last for reader in [*cut.left, *whole.left][:5]}
            cluster.stuck(f"after {cut.cuts} cuts {len(cut.left)} and {len(whole.left)} have no end, as {shown}")
            return
        for one, other in zip(whole.readers, cut.readers, strict=True):
            check_whole(cluster, one)
            check_whole(cluster, other)
            check_same(cluster, one, other)
            if len(other.frames) < EVENTS:
                cluster.flaw("E1 lost", f"run {other.run}: its end is {other.end}")
        # Over SSE, too.
        for reader in random.sample(whole.readers, min(2, side_by_side)):
            await check_after_the_end(cluster, reader)
        cuts.append(cut.cuts)
        broken_off += cut.broken_off + whole.broken_off

    async def read_cut(cut: Socket) -> None:
        planned = random.randint(5, 20)
        # Where, in the bytes of all connections together; what is cut comes again, so the end is behind the last.
        places = [0, *sorted(random.sample(range(1, EVENTS * SIZE * side_by_side * 9 // 10), planned))]
        first, *others = (place - before for before, place in itertools.pairwise(places))
        await cut.start(
            cluster.any_node(),
            [cluster.session() for _ in cut.readers],
            after_bytes=first,
            do="count",
            events=EVENTS,
            period=random.choice((0.0, 0.001, 0.003)),
            on_disconnect={"cancel_after": 10},
        )
        for after_bytes in others:
            await cut.attach(random.choice(cluster.nodes), after_bytes=after_bytes)
        if cut.cuts < planned:
            ends = [reader.frames[-1:] for reader in cut.readers[:2]]
            cluster.flaw("E1", f"the runs had ended after {cut.cuts} cuts of {planned}: {ends}")
        await cut.read_to_the_end(cluster.nodes)

    await repeat(cluster, trials, trial, workers=6 if side_by_side == 1 else 2)
    return {"cuts": sum(cuts), "cuts of one socket at least": min(cuts, default=0), "runs broken off": broken_off}
