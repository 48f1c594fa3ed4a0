"""Scenarios of what has to happen once: a request that is sent many times, and a message for a run elsewhere."""

from __future__ import annotations

import random
import secrets
import signal
from typing import Any

import trio

from .client import Broken, Exchange
from .cluster import TIMEOUT, Cluster, Node
from .load import kill_clients, repeat
from .reader import Reader, check_same, check_whole, spoken

__all__ = ["input_from_elsewhere", "keys_after_refusals", "keys_used_at_once"]

AT_ONCE = 50

INBOX = 64


async def keys_used_at_once(cluster: Cluster, trials: int) -> None:
    """One Idempotency-Key, so many requests at once, over all nodes: one run, and all are shown it."""

    async def trial(cluster: Cluster, session: str) -> None:
        key, named, busy = secrets.token_hex(8), random.random() < 0.5, False
        more: dict[str, Any] = {"do": "count", "events": 20, "period": 0.01, "named": named, "key": key}
        if named and random.random() < 0.5:
            busy, more["multitask_strategy"] = True, "enqueue"
        readers = [Reader(cluster.history) for _ in range(AT_ONCE)]
        statuses: dict[str, list[int]] = {"same": [], "other": []}
        for reader in readers:
            reader.run = readers[0].run

        async def ask(reader: Reader, node: Node) -> None:
            statuses["same"].append(await reader.start(node, session, **more))

        async def ask_otherwise(node: Node) -> None:
            statuses["other"].append(await Reader(cluster.history).start(node, session, **(more | {"events": 21})))

        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                if busy:
                    before = Reader(cluster.history)
                    nursery.start_soon(lambda: before.start(cluster.any_node(), session, seconds=0.3))
                    await before.begun.wait()
                for number, reader in enumerate(readers):
                    nursery.start_soon(ask, reader, cluster.nodes[number % len(cluster.nodes)])
                await trio.sleep(0.02)
                for node in cluster.nodes:
                    nursery.start_soon(ask_otherwise, node)
        if set(statuses["same"]) != {200} or set(statuses["other"]) != {409}:
            cluster.flaw("key", f"{key}: answered {statuses}")
        runs = {reader.run for reader in readers}
        cluster.history.read_lines(cluster.folder / "lines")
        began = [line.run for line in cluster.history.lines if line.what == "enter" and line.run in runs]
        if len(runs) != 1 or len(began) != 1:
            cluster.flaw(
                "key",
                f"{key}, with ids {named}, behind another {busy}: {len(runs)} runs were told, {len(began)} began",
            )
            return
        for reader in readers:
            check_whole(cluster, reader)
            check_same(cluster, readers[0], reader)
        late = Reader(cluster.history, readers[0].run)
        await late.start(cluster.any_node(), session, **more)
        check_same(cluster, readers[0], late)

    await repeat(cluster, trials, trial, workers=2)


async def keys_after_refusals(cluster: Cluster, _trials: int) -> None:
    """After 409, because the session is busy, and after 503, because the node leaves, the key is free again."""
    staying, leaving = cluster.nodes
    async with trio.open_nursery() as nursery:
        session = cluster.session()
        first, again = Reader(cluster.history), Reader(cluster.history)
        more: dict[str, Any] = {"seconds": 0.05, "key": secrets.token_hex(8)}
        nursery.start_soon(lambda: first.start(staying, session))
        await first.begun.wait()
        for node in cluster.nodes:
            if (status := await again.start(node, session, **more)) != 409:
                cluster.flaw("key", f"a busy session was answered {status}")
        await cluster.stop(staying, run=first.run, wait=True)
        if (status := await again.start(random.choice(cluster.nodes), session, **more)) != 200 or not again.over:
            cluster.flaw("key", f"the same request was answered {status} when the session was free")

        held, again = Reader(cluster.history), Reader(cluster.history)
        more["key"] = secrets.token_hex(8)
        nursery.start_soon(_read, held, leaving, cluster.session())
        await held.begun.wait()
        leaving.send_signal(signal.SIGTERM)
        session = cluster.session()
        with trio.fail_after(TIMEOUT):
            while (status := await again.start(leaving, session, **(more | {"seconds": 0.0}))) == 200:
                more["key"], session, again = secrets.token_hex(8), cluster.session(), Reader(cluster.history)
        if status != 503:
            cluster.flaw("key", f"a node that leaves answered {status}")
        if (status := await again.start(staying, session, **(more | {"seconds": 0.0}))) != 200 or not again.over:
            cluster.flaw("key", f"the same request was answered {status} by another node")
        await cluster.stop(staying, run=held.run)
        await cluster.wait_ended(leaving)


async def _read(reader: Reader, node: Node, session: str) -> None:
    try:
        await reader.start(node, session)
    except Broken:
        return


async def put(node: Node, run: str, text: str) -> int:
    exchange = await Exchange.open(node.port)
    try:
        return await exchange.ask("POST", f"/runs/{run}/input", {"role": "user", "content": text})
    finally:
        exchange.close()


DEAF = 1.0
"""Seconds for which a run takes none of the messages that come for it."""


async def input_from_elsewhere(cluster: Cluster, trials: int) -> dict[str, float]:
    """More messages than an inbox takes, while subscriptions are killed: each that was taken is received once."""
    slowest = 0.0

    async def trial(cluster: Cluster, session: str) -> None:
        nonlocal slowest
        owner = cluster.any_node()
        reader = Reader(cluster.history)
        sent: dict[str, list[str]] = {node.name: [] for node in cluster.nodes}
        refused = {node.name: 0 for node in cluster.nodes}
        quick: set[str] = set()

        async def send(node: Node, number: int) -> None:
            """As a client does: what is refused is sent again."""
            text = f"{node.name}.{number}"
            while (status := await put(node, reader.run, text)) == 429:
                refused[node.name] += 1
                await trio.sleep(0.1)
            if status != 202:
                cluster.flaw("input", f"run {reader.run}: {node.name} answered {status}")
            sent[node.name].append(text)

        async def send_all(node: Node) -> None:
            began = trio.current_time()
            for number in range(INBOX + 20):
                await send(node, number)
            if trio.current_time() - began < DEAF / 2:
                quick.add(node.name)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: reader.start(owner, session, do="listen", deaf=2.0))
                await reader.begun.wait()
                async with trio.open_nursery() as sending:
                    for node in cluster.nodes:
                        sending.start_soon(send_all, node)
                # One alone, with nothing behind it that would wake the run.
                other = cluster.other(owner)
                began = trio.current_time()
                await send(other, 999)
                await cluster.wait(lambda: f"{other.name}.999 " in spoken(reader), "received")
                slowest = max(slowest, trio.current_time() - began)
                await put(other, reader.run, "over")
        received = spoken(reader).split()[1:]
        for node in cluster.nodes:
            if [text for text in received if text.startswith(node.name + ".")] != sent[node.name]:
                cluster.flaw("input", f"run {reader.run} on {owner.name}: sent {sent}, received {received}")
        if not any(refused.values()):
            cluster.flaw("input", f"run {reader.run}: no node refused one of {INBOX + 20} messages")
        if (status := await put(random.choice(cluster.nodes), reader.run, "late")) != 409:
            cluster.flaw("input", f"run {reader.run} has ended, and a message was answered {status}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_clients, cluster, "pubsub")
        await repeat(cluster, trials, trial, workers=3)
        nursery.cancel_scope.cancel()
    return {"seconds to a receipt at most": round(slowest, 2)}
