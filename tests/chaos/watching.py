"""Scenarios of `on_disconnect`: who counts as a reader, and what the leaving of the last one means."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import trio

from .client import Broken, call
from .cluster import TIMEOUT, Cluster, Node
from .load import repeat
from .reader import Reader

__all__ = ["readers_leave", "readers_leave_after_real_time"]

TICK = 1.0
"""A run that nobody reads ends within so much of when it has to."""

SLACK = 1.0
"""For processes that wait for a processor."""

KINDS = ("post", "attach", "wait")


class _Watcher:
    """One reader in a task of its own, from the moment it counts until it leaves."""

    def __init__(self, cluster: Cluster, nursery: trio.Nursery, run: str) -> None:
        self.cluster = cluster
        self.nursery = nursery
        self.reader = Reader(cluster.history, run)
        self.gone = trio.Event()
        self.left_at = 0.0

    async def start(self, owner: Node, session: str, **more: Any) -> None:
        self.nursery.start_soon(self._read, lambda: self.reader.start(owner, session, **more))
        await self.reader.begun.wait()

    async def come(self, kind: str, node: Node) -> None:
        before = await self._count(node)
        read = self.reader.wait if kind == "wait" else self.reader.attach
        self.nursery.start_soon(self._read, lambda: read(node))
        with node.deadline(TIMEOUT, f"a reader of {self.reader.run}"):
            # A stream has an answer to see; who waits has none before the end.
            while self.reader.head is None if kind == "attach" else await self._count(node) <= before:
                await trio.sleep(0.01)

    async def _count(self, node: Node) -> int:
        _, told = await call(node.port, "GET", f"/test/readers/{self.reader.run}")
        return int(told["readers"])

    async def _read(self, read: Callable[[], Any]) -> None:
        try:
            await read()
        except Broken:
            pass
        finally:
            self.gone.set()

    def leave(self) -> None:
        self.left_at = time.monotonic()
        self.reader.hang_up()


async def readers_leave(
    cluster: Cluster, trials: int, *, limit: float = 2.0, workers: int = 30
) -> dict[str, float]:
    """A reader leaves, another stays; one comes back in time; the last one leaves: only then the run is stopped."""
    over: list[float] = []

    async def trial(cluster: Cluster, session: str) -> None:
        owner = cluster.any_node()
        patience = random.choice((0.0, limit, None))
        policy = {0.0: "cancel", None: "continue"}.get(patience, {"cancel_after": limit})
        async with trio.open_nursery() as nursery:
            first = _Watcher(cluster, nursery, Reader(cluster.history).run)
            run = first.reader.run
            await first.start(owner, session, on_disconnect=policy, period=0.05)
            name = f"run {run}, {policy}, on {owner.name}"
            last = first
            for _ in range(random.randint(0, 2)):
                # Another takes over: before the last one has left, or a moment later, as the reload of a page does.
                kind, node = random.choice(KINDS[1:]), cluster.any_node()
                if patience and random.random() < 0.5:
                    last.leave()
                    await trio.sleep(limit * random.uniform(0.1, 0.5))
                    name += f", {kind} on {node.name} after a pause"
                    next_one = _Watcher(cluster, nursery, run)
                    await next_one.come(kind, node)
                else:
                    name += f", {kind} on {node.name}"
                    next_one = _Watcher(cluster, nursery, run)
                    await next_one.come(kind, node)
                    last.leave()
                last = next_one
                with trio.move_on_after((patience or 0.0) + TICK + 0.5):
                    await last.gone.wait()
                if last.gone.is_set():
                    _, told = await call(cluster.any_node().port, "GET", f"/runs/{run}")
                    cluster.flaw("on_disconnect", f"{name}: it did not live on while it was read: {told}")
                    return
            if random.random() < 0.2:
                stop = await cluster.stop(cluster.any_node(), run=run)
                with trio.move_on_after(TIMEOUT):
                    await last.gone.wait()
                if not stop.accepted or not last.gone.is_set():
                    cluster.flaw("on_disconnect", f"{name}: a stop did not end it while it was read: {stop}")
                return
            last.leave()
            if patience is None:
                await trio.sleep(TICK + 0.5)
                _, told = await call(cluster.any_node().port, "GET", f"/runs/{run}")
                if told["state"] != "RUNNING":
                    cluster.flaw("on_disconnect", f"{name}: it did not go on: {told}")
                await cluster.stop(owner, run=run, wait=True)
                return
            took = await _stopped_after(cluster, run, session, last.left_at, patience + TICK + SLACK)
            if took is None or took < patience - 0.05:
                cluster.flaw("on_disconnect", f"{name}: it ended {took} s after its last reader had left")
            else:
                over.append(took - patience)
            record = cluster.run_record(session, run)
            if record.get("reason") != "disconnected":
                cluster.flaw("on_disconnect", f"{name}: it ended as {record}")

    await repeat(cluster, trials, trial, workers=workers)
    return {"seconds past the limit at most": round(max(over, default=0.0), 2)}


async def _stopped_after(cluster: Cluster, run: str, session: str, left_at: float, within: float) -> float | None:
    """From the leaving of the last reader to the end of the body, as the body itself has written it down."""
    while cluster.run_record(session, run).get("state") == "RUNNING":
        if time.monotonic() > left_at + within + SLACK:
            return None
        await trio.sleep(0.02)
    cluster.history.read_lines(cluster.folder / "lines")
    ended = [line.t for line in cluster.history.lines if line.run == run and line.what == "cancelled"]
    return ended[0] - left_at if ended else None


async def readers_leave_after_real_time(cluster: Cluster, trials: int) -> dict[str, float]:
    """The same with the 30 seconds of the documentation."""
    return await readers_leave(cluster, trials, limit=30.0, workers=trials)
