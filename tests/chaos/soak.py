"""One fault every 10 seconds while clients work, and afterwards nothing that has grown."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Awaitable, Callable

import trio

from .burdens import resources
from .cluster import Cluster, Node
from .faults import clients_at_work, proxy_of
from .load import kill_clients

__all__ = ["soak"]

EVERY = 10.0
"""Seconds from the beginning of a fault to that of the next."""

BLOCK = 30
"""Faults between two measurements of memory."""

WARM = 2
"""Blocks before the measurement that the others are compared with. By then, after ten minutes, Python's allocator
holds as much as the bursts after a fault ever need."""

GROWTH = 1.05
"""Most memory at the end, in units of the first measurement."""

CLIENTS = 2

NEWEST = 5000
"""Runs whose records are read after each fault: more than are started in the time that records are kept."""

Fault = Callable[[Cluster, Node], Awaitable[None]]


async def killed(cluster: Cluster, node: Node) -> None:
    await cluster.kill(node)
    node.start()


async def terminated(cluster: Cluster, node: Node) -> None:
    with cluster.fault("terminated", node):
        node.send_signal(signal.SIGTERM)
        await cluster.wait_ended(node)
    node.start()


async def paused(cluster: Cluster, node: Node) -> None:
    await cluster.pause(node, 1.5 * cluster.timings.lease)


async def cut_off(cluster: Cluster, node: Node) -> None:
    with cluster.fault("network cut", node):
        proxy_of(node).blackhole()
        await trio.sleep(1.5 * cluster.timings.lease)
        proxy_of(node).restore()


async def redis_paused(cluster: Cluster, _: Node) -> None:
    with cluster.fault("redis paused"):
        cluster.server.pause()
        await trio.sleep(3)
        cluster.server.resume()


async def redis_lost_its_data(cluster: Cluster, _: Node) -> None:
    with cluster.fault("data lost"):
        await cluster.server.restart(keep_data=False)


async def connections_killed(cluster: Cluster, _: Node) -> None:
    for kind in ("normal", "pubsub"):
        with cluster.fault("connections killed"), trio.move_on_after(2):
            await kill_clients(cluster, kind)


STEADY: tuple[Fault, ...] = (paused, cut_off, redis_paused, redis_lost_its_data, connections_killed)
ENDING: tuple[Fault, ...] = (killed, terminated)
"""The last node is spared these: its memory, files and tasks are measured."""


async def soak(cluster: Cluster, trials: int) -> dict[str, float]:
    """A fault every 10 s; memory, keys, files and tasks of a node that lives through all of them."""
    node = cluster.nodes[-1]
    memory: dict[str, float] = {}
    for block in range(trials // BLOCK):
        await _faults(cluster, BLOCK)
        cluster.read_records(newest=NEWEST)
        after, keys = await _quiet(cluster, node)
        memory[f"MiB after {(block + 1) * BLOCK} faults"] = round(after["rss"] / 2**20, 1)
        if block + 1 == WARM:
            before, keys_before = after, keys
    for what in ("files", "tasks"):
        if after[what] > before[what]:
            cluster.stuck(f"{node.name} had {before[what]} {what}, and has {after[what]} at the end")
    if after["rss"] > GROWTH * before["rss"]:
        cluster.stuck(f"{node.name} had {before['rss']} bytes of memory, and has {after['rss']}")
    if keys > keys_before:
        cluster.stuck(f"{keys_before} keys of Redis did not expire before, and {keys} afterwards")
    return {
        **memory,
        "memory growth %": round(100 * (after["rss"] / before["rss"] - 1), 1),
        "files more": after["files"] - before["files"],
        "tasks more": after["tasks"] - before["tasks"],
        "keys without expiry more": keys - keys_before,
        "runs started": sum(start.status == 200 for start in cluster.history.starts),
    }


async def _faults(cluster: Cluster, count: int) -> None:
    others = cluster.nodes[:-1]
    kinds = [*STEADY, *ENDING]
    random.shuffle(kinds)
    async with trio.open_nursery() as nursery:
        over = trio.Event()

        async def work() -> None:
            async with clients_at_work(cluster, [], through=cluster.nodes):
                await over.wait()

        for _ in range(CLIENTS):
            nursery.start_soon(work)
        for number in range(count):
            due = time.monotonic() + EVERY
            fault = kinds[number % len(kinds)]
            await fault(cluster, random.choice(others if fault in ENDING else cluster.nodes))
            await cluster.wait_ready()
            # Records are read before they expire.
            cluster.read_records(newest=NEWEST)
            await trio.sleep(max(0.0, due - time.monotonic()))
        over.set()


async def _quiet(cluster: Cluster, node: Node) -> tuple[dict[str, int], int]:
    """What the node holds, and the keys that never expire, when nothing has run for longer than a lease."""
    await cluster.settle()
    await trio.sleep(2 * cluster.timings.lease)
    with cluster.redis.pipeline(transaction=False) as pipe:
        for key in cluster.redis.scan_iter(count=1000):
            pipe.ttl(key)
        kept = sum(ttl == -1 for ttl in pipe.execute())
    return await resources(node), kept
