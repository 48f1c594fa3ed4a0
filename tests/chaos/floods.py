"""Floods: what users feel while one client floods the server, in every way that needs no more than a socket.

    make floods                                   all floods: 8 minutes
    make floods ARGS="requests frames"            these
    make floods ARGS="--seconds 5"                shorter

Others are 20 users with a chat of 20 events per second each. The flood comes from a process of its own, with a
lower priority, because it shares the machine with the server. Others are also measured alone, before and after it.

How late an event is depends on what else the machine does. So a flood is judged by a second figure: the part of the
lateness in which the server itself was at work, on its CPU clock (see `flood_agent`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import trio

ROOT = Path(__file__).parents[2]
AGENT = Path(__file__).parent / "flood_agent.py"
PORT_IN_LOG = re.compile(r"ready on http://127\.0\.0\.1:(\d+) ")
EVENT = re.compile(rb'"delta":true,"msg_id":"[^"]*","text":"(\d+) (\d+) "')

OTHERS = 20
PERIOD = 0.05
"""Seconds between two events of a chat, as in `flood_agent`."""
FLOOR = 10.0
"""Milliseconds of work that count as noise: a turn of the loop that starts a few runs."""

MEMORY = 200
"""MiB that a flood may cost: what the limits allow one user, and what Python does not give back."""


def post(path: str, body: Any, token: str = "flood") -> bytes:
    data = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    ).encode() + data


def get(path: str, token: str = "flood") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def chat(text: str, token: str = "flood") -> bytes:
    return post("/process", {"input": text, "session_id": secrets.token_hex(8)}, token)


# The side of the flood.


class Flood:
    """Connections that do harm, and a count of the statuses that they get."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: Counter[str] = Counter()

    async def open(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.seen["connections"] += 1
        return stream

    async def for_ever(self, once: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await once()
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            # A client that is refused a connection comes back at once.
            await trio.sleep(0.01)

    async def times(self, count: int, once: Callable[[], Awaitable[object]]) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(self.for_ever, once)

    async def ask(self, request: Callable[[], bytes]) -> None:
        """Send requests on one connection, the next one as soon as the answer is there."""
        async with await self.open() as stream:
            while True:
                await stream.send_all(request())
                answer = b""
                while b"\r\n\r\n" not in answer:
                    if not (piece := await stream.receive_some()):
                        return
                    answer += piece
                self.seen[answer[9:12].decode()] += 1
                if b"text/event-stream" in answer:
                    await trio.sleep_forever()
                head, _, body = answer.partition(b"\r\n\r\n")
                length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
                while len(body) < length:
                    body += await stream.receive_some()

    async def dribble(self, begin: bytes) -> None:
        """Begin a request, and then send a byte a second."""
        async with await self.open() as stream:
            await stream.send_all(begin)
            while True:
                await trio.sleep(1)
                await stream.send_all(b"x")

    async def come_and_go(self) -> None:
        async with await self.open() as stream:
            await stream.send_all(b"GET / HT")

    async def never_read(self) -> None:
        stream = await self.open()
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
        async with stream:
            await stream.send_all(chat("torrent"))
            # A refusal is read, and then the client comes back.
            if not (await stream.receive_some(12)).endswith(b"200"):
                self.seen["refused"] += 1
                return
            self.seen["unread streams"] += 1
            await trio.sleep_forever()

    async def frames(self) -> None:
        async with await self.open() as stream:
            await stream.send_all(
                get("/ws")[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            ping = b'{"type":"ping"}'
            frame = bytes([0x81, 0x80 | len(ping), 0, 0, 0, 0]) + ping

            async def read() -> None:
                while data := await stream.receive_some():
                    self.seen["pong"] += data.count(b"pong")
                    self.seen["refused"] += data.count(b"too_many_requests")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                while True:
                    await stream.send_all(frame * 10)
                    self.seen["frames"] += 10


def unknown_stop() -> bytes:
    return post("/stop", {"run_id": secrets.token_hex(16)})


async def slow_heads(flood: Flood) -> None:
    await flood.times(1000, partial(flood.dribble, b"GET / HTTP/1.1\r\nX: "))


async def slow_bodies(flood: Flood) -> None:
    begin = post("/process", {"input": "x" * 10_000})[:-9_000]
    await flood.times(1000, partial(flood.dribble, begin))


async def open_sessions(flood: Flood) -> None:
    """10,000 sessions, as fast as they are accepted; those that run are kept open."""
    await flood.times(500, lambda: flood.ask(partial(chat, "tick")))


FLOODS: dict[str, tuple[str, Callable[[Flood], Awaitable[None]]]] = {
    "heads": ("1,000 connections that send a byte of their head a second", slow_heads),
    "bodies": ("1,000 requests that send a byte of their body a second", slow_bodies),
    "connections": (
        "200 clients that connect and hang up, for ever",
        lambda flood: flood.times(200, flood.come_and_go),
    ),
    "unread": (
        "500 streams of an endless answer that nobody reads",
        lambda flood: flood.times(500, flood.never_read),
    ),
    "tombstones": (
        "stops of runs that do not exist, on 50 connections",
        lambda flood: flood.times(50, lambda: flood.ask(unknown_stop)),
    ),
    "sessions": ("a user who opens sessions on 500 connections", open_sessions),
    "requests": (
        "a user who lists his runs on 100 connections",
        lambda flood: flood.times(100, lambda: flood.ask(partial(get, "/runs"))),
    ),
    "strangers": (
        "wrong credentials on 100 connections",
        lambda flood: flood.times(100, lambda: flood.ask(partial(get, "/runs", "wrong"))),
    ),
    "frames": ("messages on 20 WebSockets", lambda flood: flood.times(20, flood.frames)),
}


async def flood_for(name: str, port: int, seconds: float) -> None:
    flood = Flood(port)
    with trio.move_on_after(seconds):
        await FLOODS[name][1](flood)
    say(json.dumps(flood.seen))


# The side of the others.


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, int]]:
    """Run the agent; yield its port and its process id."""
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(AGENT)], stdout=file, stderr=file, cwd=ROOT, env={**os.environ, "PORT": "0"}
        )
    try:
        while not (found := PORT_IN_LOG.search(log.read_text())):
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        yield int(found[1]), process.pid
    finally:
        process.terminate()
        process.wait(20)


def memory_of(pid: int) -> float:
    """MiB of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Others:
    """Users whose chats go on all the time."""

    def __init__(self) -> None:
        self.events: list[tuple[float, float]] = []
        """Of each event, the seconds by which it was late, and those that the server was at work in them."""
        self.broken = 0

    async def follow(self, port: int, user: str) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(chat("tick", user))
            rest = b""
            while data := await stream.receive_some():
                now = time.monotonic_ns()
                rest += data
                for found in EVENT.finditer(rest):
                    self.events.append(((now - int(found[1])) / 1e9, int(found[2]) / 1e9))
                rest = rest[rest.rfind(b"\n\n") + 2 :]
        self.broken += 1

    async def measure(self, seconds: float) -> list[tuple[float, float]]:
        """What was noted of all events that come within so many seconds."""
        self.events = []
        await trio.sleep(seconds)
        events, self.events = self.events, []
        return events


async def warm(port: int) -> None:
    """Send each kind of request once: the first ones import modules."""
    for request in (get("/runs", "warm"), get("/runs", "wrong"), unknown_stop(), chat("torrent", "warm")):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request)
            await stream.receive_some()


def p99(values: Iterable[float]) -> float:
    return quantiles(values, n=100)[98]


async def one(name: str, seconds: float) -> dict[str, Any]:
    """Measure one flood on a server of its own."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (port, pid):
        others = Others()
        async with trio.open_nursery() as nursery:
            for number in range(OTHERS):
                nursery.start_soon(others.follow, port, f"user-{number}")
            await warm(port)
            await trio.sleep(2)
            before, quiet = memory_of(pid), await others.measure(seconds / 2)
            command = [sys.executable, "-m", "tests.chaos.floods", name, "--port", str(port)]
            command = ["nice", "-n", "19", *command, "--seconds", str(seconds + 2)]
            report = (Path(folder) / "flood").open("wb")
            with report:
                flood = await trio.lowlevel.open_process(command, stdout=report, cwd=ROOT)
            # From its start on, which is the worst of some.
            during, peak = await others.measure(seconds), memory_of(pid)
            await flood.wait()
            await trio.sleep(2)
            quiet += await others.measure(seconds / 2)
            nursery.cancel_scope.cancel()
        text = (Path(folder) / "log").read_text()
        seen = json.loads((Path(folder) / "flood").read_text())
    return {
        "quiet": p99(late for late, _ in quiet),
        "during": p99(late for late, _ in during),
        "work quiet": p99(work for _, work in quiet),
        "work during": p99(work for _, work in during),
        "events": len(during) / (OTHERS * seconds / PERIOD),
        "grown": peak - before,
        "seen": seen,
        "broken": others.broken,
        "tracebacks": text.count("Traceback"),
    }


def shown(seen: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in seen.items())


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(names: list[str], seconds: float, rounds: int) -> bool:
    held = True
    say("| flood | what it got | p99 late, quiet | during | of it work, quiet | during | events | memory | holds |")
    say("|---|---|---|---|---|---|---|---|---|")
    for name in names:
        found = [await one(name, seconds) for _ in range(rounds)]
        late = [1000 * median(each[key] for each in found) for key in ("quiet", "during")]
        work = [1000 * median(each[f"work {key}"] for each in found) for key in ("quiet", "during")]
        events, grown = min(each["events"] for each in found), max(each["grown"] for each in found)
        bad = sum(each["broken"] + each["tracebacks"] for each in found)
        holds = work[1] <= max(2 * work[0], work[0] + FLOOR) and grown <= MEMORY and not bad
        held &= holds
        say(
            f"| {FLOODS[name][0]} | {shown(found[-1]['seen'])} | {late[0]:.1f} ms | {late[1]:.1f} ms "
            f"| {work[0]:.1f} ms | {work[1]:.1f} ms | {events:.0%} | {grown:+.0f} MiB "
            f"| {'yes' if holds else 'NO'} |"
        )
        if bad:
            say(f"  {bad} chats of others broken, or tracebacks")
    return held


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="FLOOD", help=", ".join(FLOODS))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--port", type=int, help="flood the server on this port, and measure nothing")
    return parser.parse_args()


if __name__ == "__main__":
    options = parsed()
    if options.port:
        [only] = options.names
        trio.run(flood_for, only, options.port, options.seconds)
    else:
        sys.exit(not trio.run(main, options.names or [*FLOODS], options.seconds, options.rounds))
