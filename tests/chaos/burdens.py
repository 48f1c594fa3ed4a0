"""Scenarios of readers that do not read: what they cost the others and the server, and how they are let go."""

from __future__ import annotations

from statistics import quantiles
from typing import Any

import attrs
import trio

from .client import Broken, call
from .cluster import TIMEOUT, Cluster, Node
from .reader import Reader, check_same, check_whole

__all__ = ["readers_that_do_not_read", "readers_that_do_not_read_for_long"]

SIZE = 10_000
"""Bytes of an event."""

WINDOW = 4096
"""Bytes that the kernel reads ahead for a reader that does not, about; the rest is the server's burden."""


IDLE = 6.0
"""Seconds after which Hypercorn's own server has let go of connections that were left, the test's own too."""

LINGER = 1.0
"""Seconds from the last text to the end."""


@attrs.frozen(kw_only=True)
class Measured:
    latencies: list[float]
    """Seconds from the making of an event to its receipt, of all readers that read."""
    rss: list[tuple[float, int]]
    """Seconds from the first event, and the bytes that the server had grown by, until it cut who does not read."""

    def grown_by(self, seconds: float) -> int:
        return next((rss for at, rss in self.rss if at >= seconds), self.rss[-1][1])


async def resources(node: Node) -> dict[str, int]:
    _, found = await call(node.port, "GET", "/test/resources")
    return dict(found)


async def readers_that_do_not_read(
    cluster: Cluster, bad: int, *, good: int = 8, events: int = 120, period: float = 0.03, size: int = SIZE
) -> dict[str, float]:
    """One byte a second, or nothing at all: the others see all; these are cut, and come back for the rest."""
    without = await _measure(cluster, good, 0, events, period, size)
    among = await _measure(cluster, good, bad, events, period, size)
    return {
        "events p99 ms without": _p99(without),
        "events p99 ms among them": _p99(among),
        "KiB each": round((among.rss[-1][1] - without.grown_by(among.rss[-1][0])) / bad / 1024, 1),
    }


async def readers_that_do_not_read_for_long(cluster: Cluster, bad: int) -> dict[str, float]:
    """A run of 30 MB that lasts for longer than a reader may take for nothing, as it is set without a test.

    A larger answer would end it: `MAX_ANSWER_BYTES`.
    """
    return await readers_that_do_not_read(cluster, bad, good=4, events=10_000, period=0.01, size=3_000)


def _p99(measured: Measured) -> float:
    return round(1000 * quantiles(measured.latencies, n=100)[98], 1)


async def _measure(cluster: Cluster, good: int, bad: int, events: int, period: float, size: int) -> Measured:
    """In a fresh process. Memory is looked at until the last text has come: the end repeats all, for everybody."""
    [node] = cluster.nodes
    await cluster.kill(node)
    node.start()
    await node.wait_ready()
    await _chat(cluster, node)
    before = await resources(node)
    grown: list[tuple[float, int]] = []
    first = Reader(cluster.history)
    readers = [Reader(cluster.history, first.run) for _ in range(good - 1)]
    idle = [Reader(cluster.history, first.run) for _ in range(bad)]
    wake = trio.Event()
    async with trio.open_nursery() as reading, trio.open_nursery() as stalling:
        start = {"do": "count", "events": events, "size": size, "period": period, "linger": LINGER}
        reading.start_soon(lambda: first.start(node, cluster.session(), on_disconnect="continue", **start))
        await first.begun.wait()
        for reader in readers:
            reading.start_soon(reader.attach, node)
        for number, reader in enumerate(idle):
            how = _one_byte_a_second(wake) if number % 2 else _nothing(wake)
            stalling.start_soon(_read_badly, reader, node, how)
        if idle:
            stalling.start_soon(_wake_when_cut, cluster, node, first.run, good, wake)
        began = trio.current_time()
        while len(first.frames) < events + 3:
            assert not first.over, (
                f"the run has ended after {len(first.frames)} events: {first.frames[-1][1][:300]!r}"
            )
            rss = (await resources(node))["rss"] - before["rss"]
            if not wake.is_set():
                grown.append((trio.current_time() - began, rss))
            await trio.sleep(0.25)
    for reader in (first, *readers):
        check_whole(cluster, reader)
        check_same(cluster, first, reader)
    for reader in idle:
        _check_came_back(cluster, reader, first)
    await _check_resources(cluster, node, before)
    return Measured(latencies=[late for reader in (first, *readers) for late in _latencies(reader)], rss=grown)


async def _chat(cluster: Cluster, node: Node) -> None:
    """What a process makes once."""
    reader = Reader(cluster.history)
    await reader.start(node, cluster.session(), do="count", events=100, size=SIZE)
    await Reader(cluster.history, reader.run).attach(node)


def _one_byte_a_second(wake: trio.Event) -> dict[str, Any]:
    async def before_read(reader: Reader) -> None:
        if reader.frames:
            with trio.move_on_after(1):
                await wake.wait()

    return {"before_read": before_read, "chunk": 1}


def _nothing(wake: trio.Event) -> dict[str, Any]:
    async def before_read(reader: Reader) -> None:
        if reader.frames:
            await wake.wait()

    return {"before_read": before_read}


async def _read_badly(reader: Reader, node: Node, how: dict[str, Any]) -> None:
    """Until it is cut; then it comes back, and reads as it should."""
    try:
        await reader.attach(node, window=WINDOW, **how)
    except Broken:
        reader.cuts += 1
        await reader.attach(node)


async def _wake_when_cut(cluster: Cluster, node: Node, run: str, good: int, wake: trio.Event) -> None:
    """Let them read again when the server has let go of them."""
    await trio.sleep((node.stalled or 60.0) / 4)
    left = 0
    with trio.move_on_after((node.stalled or 60.0) + TIMEOUT) as scope:
        while True:
            _, told = await call(node.port, "GET", f"/test/readers/{run}")
            if (left := told["readers"]) <= good:
                break
            await trio.sleep(0.1)
    wake.set()
    if scope.cancelled_caught:
        cluster.stuck(f"{node.name} has {left} readers, and {good} of them read")


def _check_came_back(cluster: Cluster, reader: Reader, whole: Reader) -> None:
    """What it got is what the others got; where it was cut comes the rest, or an explicit gap and the rest."""
    name = f"run {whole.run}, a reader that did not read"
    if not reader.cuts:
        cluster.flaw("E1", f"{name}: it was not cut: {reader.last} of {whole.last}")
    shown = dict(whole.frames)
    if not reader.over or reader.frames != [(number, shown.get(number)) for number in reader.numbers]:
        cluster.flaw("E1", f"{name}: it was shown {reader.numbers[:5]}... to {reader.last} of {whole.last}")
    missing = [number for start, stop in reader.gaps for number in range(start, stop + 1)]
    if sorted([*reader.numbers, *missing]) != whole.numbers:
        cluster.flaw("E1 lost", f"{name}: it got a hole that no gap tells, or something twice: {reader.gaps}")


async def _check_resources(cluster: Cluster, node: Node, before: dict[str, int]) -> None:
    found = before
    with trio.move_on_after(TIMEOUT):
        while True:
            found = await resources(node)
            if found["files"] <= before["files"] and found["tasks"] <= before["tasks"]:
                return
            await trio.sleep(0.1 if node.way == "run" else IDLE)
    cluster.stuck(f"{node.name} holds {found} afterwards, and held {before} before")


def _latencies(reader: Reader) -> list[float]:
    late = []
    for (_, data), at in zip(reader.frames, reader.times, strict=True):
        if b'"delta":true' in data:
            stamp = data[data.index(b'"text":"') :].split(b"@", 1)[1].split(b" ", 1)[0]
            late.append(at - float(stamp))
    return late
