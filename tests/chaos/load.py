"""Scenarios without broken parts, or with broken subscriptions only: stops and starts at unlucky moments."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from .cluster import Chat, Cluster
from .history import Stop

__all__ = [
    "connections",
    "cross_node_latency",
    "simultaneous_starts",
    "stops_around_the_claim",
    "stops_around_the_finish",
    "stops_at_random_times",
    "stops_on_the_first_event",
    "stops_without_subscriptions",
]

WORKERS = 6

Trial = Callable[[Cluster, str], Awaitable[None]]


async def repeat(cluster: Cluster, trials: int, trial: Trial, *, workers: int = WORKERS) -> None:
    """`trials` of them by several workers, each on a session of its own, which every trial leaves free."""
    left = trials

    async def work() -> None:
        nonlocal left
        session = cluster.session()
        while left > 0:
            left -= 1
            await trial(cluster, session)

    async with trio.open_nursery() as nursery:
        for _ in range(min(workers, trials)):
            nursery.start_soon(work)


@asynccontextmanager
async def sampled(cluster: Cluster) -> AsyncIterator[None]:
    """Sessions and their runs are read now and then, in one step each. Only for a Redis that answers."""

    async def look() -> None:
        while True:
            await trio.sleep(0.1)
            cluster.read_records()
            sessions = {start.session for start in cluster.history.starts[-100:]}
            cluster.sample(random.sample(sorted(sessions), min(10, len(sessions))))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        yield
        nursery.cancel_scope.cancel()


async def end(cluster: Cluster, chat: Chat) -> None:
    """The end of a trial: a run that no stop has met, since it came too early, is stopped now."""
    if not chat.done.is_set():
        await cluster.stop_until_over(chat)
    await cluster.wait_done(chat)


async def wait_accepted(cluster: Cluster, chat: Chat, stop: Stop) -> None:
    """An accepted stop has to end its run without any further one."""
    if stop.accepted and stop.target == chat.run:
        await cluster.wait_done(chat)


async def stops_at_random_times(cluster: Cluster, trials: int) -> None:
    """By session or by run id, endless or finite, while it starts, runs, ends, or has ended; also late ones."""

    async def trial(cluster: Cluster, session: str) -> None:
        run = f"r-{secrets.token_hex(8)}"
        extra: dict[str, Any] = {"period": random.uniform(0.002, 0.02), "cleanup": random.choice((0.0, 0.02))}
        if random.random() < 0.4:
            extra["seconds"] = random.uniform(0.0, 0.3)
        named = {"run": run} if random.random() < 0.5 else {"session": session}
        stops: list[Stop] = []
        chats: list[Chat] = []

        async def start() -> None:
            chats.append(await cluster.start(cluster.any_node(), session, run, **extra))

        async def stop() -> None:
            await trio.sleep(random.uniform(0.0, 0.3))
            stops.append(
                await cluster.stop(cluster.any_node(), wait=random.random() < 0.2, **named)  # type: ignore[arg-type]
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            nursery.start_soon(stop)
        [chat], [told] = chats, stops
        await wait_accepted(cluster, chat, told)
        await end(cluster, chat)
        if random.random() < 0.3:
            await late_stop(cluster, session, run)

    async with sampled(cluster):
        await repeat(cluster, trials, trial)


async def late_stop(cluster: Cluster, session: str, old: str) -> None:
    """Stops that must not meet the next run while it runs: of the run before it, and another user's."""
    run = f"r-{secrets.token_hex(8)}"
    chats: list[Chat] = []

    async def start() -> None:
        chats.append(await cluster.start(cluster.any_node(), session, run, seconds=0.05))

    async def stop(**named: str) -> None:
        await trio.sleep(random.uniform(0.0, 0.03))
        await cluster.stop(cluster.any_node(), **named)  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        nursery.start_soon(lambda: stop(run=old))
        nursery.start_soon(lambda: stop(run=old, session=session))
        nursery.start_soon(lambda: stop(run=run, user="somebody else"))
        nursery.start_soon(lambda: stop(session=session, user="somebody else"))
    [chat] = chats
    await cluster.wait_done(chat)
    if chat.state != "FINISHED":
        cluster.stuck(f"run {chat.run} after a late stop of {old}: {chat.status} {chat.state} {chat.code}")


async def stops_on_the_first_event(cluster: Cluster, trials: int) -> None:
    async def trial(cluster: Cluster, session: str) -> None:
        chat = await cluster.start(cluster.any_node(), session)
        await chat.begun.wait()
        named = {"run": chat.run} if random.random() < 0.5 else {"session": session}
        stop = await cluster.stop(cluster.any_node(), **named)
        if not stop.accepted:
            cluster.stuck(f"a stop on the first event of run {chat.run} was not accepted: {stop}")
        await wait_accepted(cluster, chat, stop)
        await end(cluster, chat)

    async with sampled(cluster):
        await repeat(cluster, trials, trial)


async def stops_around_the_claim(cluster: Cluster, trials: int) -> None:
    """By run id, within 5 ms before and after the request; endless runs, so only the stop can end them."""

    async def trial(cluster: Cluster, session: str) -> None:
        run = f"r-{secrets.token_hex(8)}"
        offset = random.uniform(-0.005, 0.005)
        stops: list[Stop] = []
        chats: list[Chat] = []

        async def start() -> None:
            await trio.sleep(max(0.0, -offset))
            chats.append(await cluster.start(cluster.any_node(), session, run))

        async def stop() -> None:
            await trio.sleep(max(0.0, offset))
            with_session = {"session": session} if random.random() < 0.5 else {}
            stops.append(await cluster.stop(cluster.any_node(), run=run, **with_session))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            nursery.start_soon(stop)
        [chat], [told] = chats, stops
        if not told.accepted:
            cluster.stuck(f"a stop by run id around the claim of {run} was not accepted: {told}")
        await wait_accepted(cluster, chat, told)
        await end(cluster, chat)

    async with sampled(cluster):
        await repeat(cluster, trials, trial)


class Border:
    """The time after the first event of a run at which stops begin to come too late; it depends on the machine.

    It follows the answers, a millisecond for each, so that about half of the stops come in time. More equal answers
    in a row than there are workers mean that it is far away. Then the steps grow.
    """

    def __init__(self, guess: float) -> None:
        self.seconds = guess
        self._in_time = False
        self._in_a_row = 0

    def note(self, *, in_time: bool) -> None:
        self._in_a_row = self._in_a_row + 1 if in_time is self._in_time else 1
        self._in_time = in_time
        step = 0.001 * 2 ** min(max(0, self._in_a_row - WORKERS), 4)
        self.seconds += step if in_time else -step


async def stops_around_the_finish(cluster: Cluster, trials: int, *, guess: float = 0.045) -> None:
    """About half of them come in time: where the border is, on this machine, the answers tell."""
    border = Border(guess)

    async def trial(cluster: Cluster, session: str) -> None:
        # If a stop comes too late even without a pause, the run takes longer.
        seconds, pause = 0.05 - min(0.0, border.seconds), border.seconds + random.uniform(-0.004, 0.004)
        chat = await cluster.start(cluster.any_node(), session, seconds=seconds, period=0.01)
        await chat.begun.wait()
        await trio.sleep(max(0.0, pause))
        named = {"run": chat.run} if random.random() < 0.5 else {"session": session}
        stop = await cluster.stop(cluster.any_node(), wait=random.random() < 0.5, **named)
        border.note(in_time=stop.accepted)
        await wait_accepted(cluster, chat, stop)
        await cluster.wait_done(chat)

    async with sampled(cluster):
        await repeat(cluster, trials, trial)


async def stops_without_subscriptions(cluster: Cluster, trials: int) -> None:
    """Every 100 ms all subscriptions are cut: wake-ups get lost, and the heartbeat finds the stop."""

    async def trial(cluster: Cluster, session: str) -> None:
        owner = cluster.any_node()
        chat = await cluster.start(owner, session)
        await chat.begun.wait()
        await trio.sleep(random.uniform(0.0, 0.2))
        others = [node for node in cluster.nodes if node is not owner]
        stop = await cluster.stop(random.choice(others), session=session)
        if not stop.accepted:
            cluster.stuck(f"a stop of run {chat.run} was not accepted: {stop}")
        await wait_accepted(cluster, chat, stop)
        await end(cluster, chat)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_clients, cluster, "pubsub")
        async with sampled(cluster):
            await repeat(cluster, trials, trial)
        nursery.cancel_scope.cancel()


async def kill_clients(cluster: Cluster, kind: str, period: float = 0.1) -> None:
    """CLIENT KILL of one type of connections again and again; the test's own is spared."""
    while True:
        cluster.redis.client_kill_filter(_type=kind, skipme=True)
        await trio.sleep(period)


async def simultaneous_starts(cluster: Cluster, rounds: int, *, starts: int = 20) -> None:
    """In each round, so many requests for one session at once, over all nodes: one runs, the others are refused."""

    async def trial(cluster: Cluster, session: str) -> None:
        chats: list[Chat] = []

        async def start(number: int) -> None:
            node = cluster.nodes[number % len(cluster.nodes)]
            chats.append(await cluster.start(node, session))

        async with trio.open_nursery() as nursery:
            for number in range(starts):
                nursery.start_soon(start, number)
        answers = sorted(chat.status for chat in chats)
        if answers != [200, *[409] * (starts - 1)]:
            cluster.stuck(f"session {session}: {starts} starts at once were answered {answers}")
        for chat in chats:
            if chat.status == 200:
                await chat.begun.wait()
                await cluster.stop_until_over(chat)

    async with sampled(cluster):
        await repeat(cluster, rounds, trial, workers=2)


async def cross_node_latency(cluster: Cluster, trials: int) -> None:
    """One stop at a time, always sent to a node that does not own the run."""

    async def trial(cluster: Cluster, session: str) -> None:
        owner = cluster.any_node()
        chat = await cluster.start(owner, session, period=0.02)
        await chat.begun.wait()
        await trio.sleep(random.uniform(0.0, 0.03))
        other = random.choice([node for node in cluster.nodes if node is not owner])
        stop = await cluster.stop(other, session=session)
        await wait_accepted(cluster, chat, stop)
        await end(cluster, chat)

    await repeat(cluster, trials, trial, workers=1)


async def connections(cluster: Cluster, chats: int) -> dict[str, float]:
    """How many connections each process holds to Redis while so many chats run; and what a stop takes then."""
    running: list[Chat] = []

    async def start(number: int) -> None:
        node = cluster.nodes[number % len(cluster.nodes)]
        running.append(await cluster.start(node, cluster.session(), period=2.0))

    limiter = trio.CapacityLimiter(20)

    async def limited(number: int) -> None:
        async with limiter:
            await start(number)

    async with trio.open_nursery() as nursery:
        for number in range(chats):
            nursery.start_soon(limited, number)
    # Over a lease, so that every one of them is renewed.
    over = time.monotonic() + cluster.timings.lease * 1.5
    while time.monotonic() < over:
        await trio.sleep(0.1)
    alive = sum(not chat.done.is_set() for chat in running)
    if alive != chats:
        cluster.stuck(f"of {chats} chats only {alive} run a while later")
    names = [client["name"] for client in cluster.redis.client_list() if client["name"].startswith("trio-agentapp")]
    of_process: dict[str, int] = {}
    for name in names:
        process = name.rpartition(":")[2]
        of_process[process] = of_process.get(process, 0) + 1

    async def stop(chat: Chat) -> None:
        async with limiter:
            other = random.choice([node for node in cluster.nodes if node is not chat.node])
            told = await cluster.stop(other, session=chat.session)
            await wait_accepted(cluster, chat, told)
            await end(cluster, chat)

    async with trio.open_nursery() as nursery:
        for chat in running:
            nursery.start_soon(stop, chat)
    return {"processes": len(of_process), "connections of one": max(of_process.values(), default=0)}
