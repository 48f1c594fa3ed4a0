"""Scenarios with broken parts: owners killed and paused, Redis gone, full or forgetful, networks that swallow.

While something is broken, clients go on: they start runs on free sessions and on busy ones, and stop others.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import redis
import trio

from trio_agentapp.testing.faulty_proxy import FaultyProxy

from .cluster import Chat, Cluster, Node
from .history import TERMINAL, Freed
from .load import end, kill_clients, sampled, wait_accepted

__all__ = [
    "claim_replies_lost",
    "clients_leave_while_redis_is_down",
    "command_connections_killed",
    "data_lost_while_one_is_cut_off",
    "finish_replies_lost",
    "finish_replies_lost_for_a_lease",
    "heartbeat_replies_lost",
    "network_cut_for_all",
    "network_cut_for_one",
    "owner_killed",
    "owner_paused_and_cut_off",
    "owner_terminated",
    "owners_paused",
    "random_replies_lost",
    "redis_full",
    "redis_killed",
    "redis_paused",
    "redis_restarted_with_data",
    "redis_restarted_without_data",
    "same_run_asked_of_a_node_that_is_cut_off",
    "stop_replies_lost",
]

SESSIONS = 8
"""Endless chats that a fault meets, by default."""


async def start_chats(cluster: Cluster, count: int, *, on: Node | None = None, cleanup: float = 0.05) -> list[Chat]:
    chats: list[Chat] = []

    async def start(node: Node) -> None:
        chat = await cluster.start(node, cluster.session(), period=0.02, cleanup=cleanup)
        await chat.begun.wait()
        chats.append(chat)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(start, on or cluster.nodes[number % len(cluster.nodes)])
    refused = [chat for chat in chats if chat.status != 200]
    assert not refused, refused
    return chats


async def wait_renewed(cluster: Cluster, chats: list[Chat]) -> None:
    """Until all of their leases were renewed: from then on they live by renewals, not by their claims."""

    def leases_end() -> list[str | None]:
        return [cluster.session_record(chat.session).get("exp") for chat in chats]

    before = leases_end()
    await cluster.wait(lambda: all(now != then for now, then in zip(leases_end(), before, strict=True)), "renewed")


@asynccontextmanager
async def clients_at_work(cluster: Cluster, busy: list[Chat], *, through: list[Node]) -> AsyncIterator[None]:
    """Clients that start, stop, and ask for the sessions in use, until the block is left; they end what they began.

    `through`: the nodes that are asked for sessions in use.
    """
    over = trio.Event()

    async def pause(seconds: float) -> None:
        with trio.move_on_after(seconds):
            await over.wait()

    async def work() -> None:
        while not over.is_set():
            chat = await cluster.start(cluster.any_node(), cluster.session(), seconds=random.uniform(0.0, 0.1))
            if chat.status != 200:
                await pause(0.05)
            await chat.done.wait()

    async def start_and_stop() -> None:
        while not over.is_set():
            chat = await cluster.start(cluster.any_node(), cluster.session(), cleanup=0.02)
            await chat.begun.wait()
            if chat.status == 200:
                await cluster.stop(cluster.any_node(), session=chat.session)
                await cluster.stop_until_over(chat)
            else:
                await pause(0.05)

    async def contend(session: str) -> None:
        while not over.is_set():
            # With a little work in between, so that an overlap would be seen.
            chat = await cluster.start(random.choice(through), session, seconds=0.3, period=0.01)
            await chat.done.wait()
            await pause(0.06)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        nursery.start_soon(start_and_stop)
        for chat in busy:
            nursery.start_soon(contend, chat.session)
        try:
            yield
        finally:
            over.set()


async def under(
    cluster: Cluster,
    fault: Callable[[], Awaitable[None]],
    *,
    sessions: int = SESSIONS,
    cleanup: float = 0.05,
    through: list[Node] | None = None,
) -> None:
    """Chats and clients at work, the fault, and afterwards nothing that stays behind."""
    chats = await start_chats(cluster, sessions, cleanup=cleanup)
    await wait_renewed(cluster, chats)
    async with clients_at_work(cluster, chats, through=through or cluster.nodes):
        await fault()
        await cluster.wait_ready()
    for chat in chats:
        await cluster.stop_until_over(chat)
    await cluster.settle()


# Owners.


async def owner_killed(cluster: Cluster, sessions: int = SESSIONS) -> None:
    """kill -9: sessions can be claimed within L; those that nobody asks for are reaped within L + R."""
    owner = cluster.nodes[0]
    chats = await start_chats(cluster, sessions, on=owner)
    await wait_renewed(cluster, chats)
    asked, left_alone, stopped = chats[::3], chats[1::3], chats[2::3]
    died_at = await cluster.kill(owner)
    limit = cluster.timings.lease + cluster.timings.reaper

    async def ask(chat: Chat) -> None:
        while True:
            again = await cluster.start(cluster.any_node(), chat.session, seconds=0.05)
            if again.status == 200:
                at = time.monotonic()
                cluster.history.freed.append(Freed(session=chat.session, died_at=died_at, t=at))
                await cluster.wait_done(again)
                return
            await trio.sleep(0.05)

    async def watch(chat: Chat) -> None:
        """By Redis alone: a node that is asked would reap it."""
        with trio.move_on_after(limit + 1.0) as scope:
            while (record := cluster.run_record(chat.session, chat.run)).get("state") not in TERMINAL:
                await trio.sleep(0.02)
        if scope.cancelled_caught or record["reason"] != "owner_lost":
            cluster.stuck(f"run {chat.run} of the dead owner: {record} after {time.monotonic() - died_at:.2f} s")

    async def stop(chat: Chat) -> None:
        """It cannot be, any more: its caller is told so."""
        told = await cluster.stop(cluster.any_node(), session=chat.session, wait=True)
        if told.status != 200 or told.stopped or told.state != "ERROR" or told.t1 > died_at + limit + 1.0:
            cluster.stuck(
                f"a stop of a dead owner's run was told, {told.t1 - died_at:.2f} s after its death: {told}"
            )

    with trio.move_on_after(limit + 5.0) as scope:
        async with trio.open_nursery() as nursery:
            for chat in stopped:
                nursery.start_soon(stop, chat)
            for chat in asked:
                nursery.start_soon(ask, chat)
            for chat in left_alone:
                nursery.start_soon(watch, chat)
    if scope.cancelled_caught:
        cluster.stuck("sessions of the dead owner cannot be claimed")
    owner.start()
    await owner.wait_ready()
    await cluster.settle()


async def owner_terminated(cluster: Cluster, sessions: int = SESSIONS) -> None:
    """SIGTERM: its runs are stopped with their cleanup, and their sessions are free at once."""
    owner, other = cluster.nodes[:2]
    chats = await start_chats(cluster, sessions, on=owner)
    await cluster.terminate(owner)
    for chat in chats:
        await cluster.wait_done(chat)
        record = cluster.run_record(chat.session, chat.run)
        if (chat.state, record.get("reason")) != ("STOPPED", "shutdown"):
            cluster.stuck(f"run {chat.run} of a node that was told to stop: {chat.state}, {record}")
        again = await cluster.start(other, chat.session, seconds=0.0)
        if again.status != 200:
            cluster.stuck(
                f"session {chat.session} is blocked by a node that has ended: {again.status} {again.code}"
            )
        await cluster.wait_done(again)
    owner.start()
    await owner.wait_ready()
    await cluster.settle()


async def owners_paused(cluster: Cluster, sessions: int = 4) -> None:
    """SIGSTOP of three owners for 0.5, 1.5 and 3 leases, while others ask for their sessions on the last node."""
    *owners, other = cluster.nodes
    chats = [await start_chats(cluster, sessions, on=owner) for owner in owners]
    for group in chats:
        await wait_renewed(cluster, group)
    over = trio.Event()

    async def contend(chat: Chat) -> None:
        while not over.is_set():
            # With a little work in between, so that an overlap would be seen.
            again = await cluster.start(other, chat.session, seconds=0.2, period=0.01)
            await again.done.wait()
            if again.status != 200:
                await trio.sleep(0.03)

    async with trio.open_nursery() as nursery:
        for group in chats:
            for chat in group:
                nursery.start_soon(contend, chat)
        async with sampled(cluster), trio.open_nursery() as pauses:
            for owner, leases in zip(owners, (0.5, 1.5, 3.0), strict=False):
                pauses.start_soon(cluster.pause, owner, leases * cluster.timings.lease)
        over.set()
    for group in chats:
        for chat in group:
            await cluster.stop_until_over(chat)
    await cluster.settle()


# Redis.


async def redis_paused(cluster: Cluster, seconds: float = 3.0) -> None:
    """SIGSTOP of the server: connections stay open and nothing answers."""

    async def fault() -> None:
        with cluster.fault("redis paused"):
            cluster.server.pause()
            await trio.sleep(seconds)
            cluster.server.resume()

    await under(cluster, fault)


async def redis_restarted_with_data(cluster: Cluster) -> None:
    async def fault() -> None:
        with cluster.fault("redis restarted"):
            # What is written between the save and the kill is lost: nobody may write in between.
            cluster.redis.execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
            await cluster.server.restart(keep_data=True)

    await under(cluster, fault)


async def redis_restarted_without_data(cluster: Cluster) -> None:
    async def fault() -> None:
        with cluster.fault("data lost"):
            await cluster.server.restart(keep_data=False)

    await under(cluster, fault)


async def redis_killed(cluster: Cluster, seconds: float = 5.0) -> None:
    """Gone for a while, and back without its data."""

    async def fault() -> None:
        with cluster.fault("data lost"):
            await cluster.server.kill()
            await trio.sleep(seconds)
            await cluster.server.restart(keep_data=False)

    await under(cluster, fault)


async def clients_leave_while_redis_is_down(cluster: Cluster) -> None:
    """Their runs end at once, and are written down when Redis is back: nothing stays blocked."""
    for seconds in (0.4 * cluster.timings.lease, 1.3 * cluster.timings.lease):
        chats = await start_chats(cluster, SESSIONS)
        with cluster.fault("redis paused"):
            cluster.server.pause()
            for chat in chats:
                chat.hang_up()
            await trio.sleep(seconds)
            cluster.server.resume()
        await cluster.wait_ready()
        await cluster.settle()


async def command_connections_killed(cluster: Cluster, trials: int = 20) -> None:
    """CLIENT KILL of everybody's command connections every 100 ms, while stops are sent."""

    async def trial() -> None:
        chat = await cluster.start(cluster.any_node(), cluster.session(), cleanup=0.01)
        await chat.begun.wait()
        await trio.sleep(random.uniform(0.0, 0.1))
        if chat.status == 200:
            stop = await cluster.stop(cluster.any_node(), session=chat.session)
            await wait_accepted(cluster, chat, stop)
            await end(cluster, chat)

    with cluster.fault("connections killed"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_clients, cluster, "normal")
            async with sampled(cluster), trio.open_nursery() as workers:

                async def work(count: int) -> None:
                    for _ in range(count):
                        await trial()

                for number in range(4):
                    workers.start_soon(work, len(range(number, trials, 4)))
            nursery.cancel_scope.cancel()
    await cluster.wait_ready()
    await cluster.settle()


async def redis_full(cluster: Cluster, sessions: int = SESSIONS) -> None:
    """At maxmemory: no new runs; those that run are renewed, stopped, and finish; dead owners are reaped."""
    finite_for = 3 * cluster.timings.lease
    chats = await start_chats(cluster, sessions)
    killed = cluster.nodes[-1]
    orphans = await start_chats(cluster, 4, on=killed)
    survivors = cluster.nodes[:-1]
    finite = await cluster.start(survivors[0], cluster.session(), seconds=finite_for)
    with cluster.fault("redis full"):
        fill(cluster)
        refused = await cluster.start(survivors[0], cluster.session(), seconds=0.0)
        if refused.status != 503:
            cluster.stuck(f"a start on a full Redis was answered {refused.status} {refused.code}")
        unknown = await cluster.stop(survivors[0], run="r-nobody-has-ever-heard-of")
        if unknown.status not in (200, 503):
            cluster.stuck(f"a stop of an unknown run on a full Redis was answered {unknown.status}")
        # Over a lease, so that every one of them is renewed, and is due in the reaper's index.
        over = time.monotonic() + 1.5 * cluster.timings.lease
        while time.monotonic() < over:
            await trio.sleep(0.05)
        died_at = await cluster.kill(killed)
        limit = died_at + cluster.timings.lease + cluster.timings.reaper + 1.5
        for chat in orphans:
            while (record := cluster.run_record(chat.session, chat.run)).get("state") not in TERMINAL:
                if time.monotonic() > limit:
                    cluster.stuck(f"run {chat.run} of a dead owner is not reaped on a full Redis: {record}")
                    break
                await trio.sleep(0.05)
        for chat in chats:
            if chat.node is killed:
                continue
            if chat.done.is_set():
                cluster.stuck(f"run {chat.run} ended on a full Redis: {chat.state} {chat.code}")
            stop = await cluster.stop(survivors[-1], session=chat.session)
            if not stop.accepted:
                cluster.stuck(f"a stop on a full Redis was not accepted: {stop}")
            await wait_accepted(cluster, chat, stop)
        await cluster.wait_done(finite)
        if finite.state != "FINISHED":
            cluster.stuck(f"a run on a full Redis did not finish: {finite.state} {finite.code}")
        assert is_full(cluster)
        cluster.redis.config_set("maxmemory", 0)
        cluster.redis.delete("filling")
    killed.start()
    await cluster.wait_ready()
    await cluster.settle()


def fill(cluster: Cluster) -> None:
    """Set the limit well below what is in use: what connections give back must not make room."""
    cluster.redis.setrange("filling", 8_000_000, "x")
    used = int(cluster.redis.info("memory")["used_memory"])
    cluster.redis.config_set("maxmemory", used - 4_000_000)


def is_full(cluster: Cluster) -> bool:
    try:
        cluster.redis.set("one more", "")
    except redis.exceptions.OutOfMemoryError:
        return True
    return False


# The network between nodes and Redis.


async def warm_up(cluster: Cluster) -> None:
    """The server knows all scripts: the first answer to each would otherwise be that it does not."""
    for chat in await start_chats(cluster, len(cluster.nodes)):
        await cluster.stop_until_over(chat)


def proxy_of(node: Node) -> FaultyProxy:
    assert node.proxy is not None
    return node.proxy


async def network_cut_for_one(cluster: Cluster, leases: float = 1.5) -> None:
    first, *others = cluster.nodes

    async def fault() -> None:
        with cluster.fault("network cut", first):
            proxy_of(first).blackhole()
            async with sampled(cluster):
                await trio.sleep(leases * cluster.timings.lease)
            proxy_of(first).restore()

    await under(cluster, fault, through=others)


async def data_lost_while_one_is_cut_off(cluster: Cluster) -> None:
    """Redis forgets who owns what, and an owner cannot hear of it: nobody else may start in its place too early."""
    first, *others = cluster.nodes

    async def fault() -> None:
        with cluster.fault("network cut", first):
            proxy_of(first).blackhole()
            with cluster.fault("data lost"):
                await cluster.server.restart(keep_data=False)
            await trio.sleep(1.2 * cluster.timings.lease)
            proxy_of(first).restore()

    await under(cluster, fault, through=others)


async def owner_paused_and_cut_off(cluster: Cluster, leases: float = 1.5) -> None:
    """On waking nothing tells it that its lease is over: it has to know by itself."""
    first, *others = cluster.nodes

    async def fault() -> None:
        with cluster.fault("network cut", first):
            proxy_of(first).blackhole()
            async with sampled(cluster):
                await cluster.pause(first, leases * cluster.timings.lease)
                await trio.sleep(0.25 * cluster.timings.lease)
            proxy_of(first).restore()

    await under(cluster, fault, through=others)


async def network_cut_for_all(cluster: Cluster, leases: float = 1.5) -> None:
    async def fault() -> None:
        with cluster.fault("network cut"):
            for node in cluster.nodes:
                proxy_of(node).blackhole()
            await trio.sleep(leases * cluster.timings.lease)
            for node in cluster.nodes:
                proxy_of(node).restore()

    await under(cluster, fault)


async def random_replies_lost(cluster: Cluster, seconds: float = 5.0) -> None:
    """Replies are lost, held back and delayed, whatever they answer."""

    async def fault() -> None:
        with cluster.fault("replies lost"):
            over = time.monotonic() + seconds
            while time.monotonic() < over:
                proxy = proxy_of(random.choice(cluster.nodes))
                match random.randrange(4):
                    case 0:
                        proxy.hold_replies()
                        await trio.sleep(random.uniform(0.0, 0.3))
                        # What is held back when its connection ends is lost: TCP loses nothing else.
                        proxy.cut()
                        proxy.restore()
                    case 1:
                        proxy.hold_replies()
                        await trio.sleep(random.uniform(0.0, 0.6))
                        proxy.restore()
                    case 2:
                        proxy.delay(random.uniform(0.0, 0.3))
                        await trio.sleep(random.uniform(0.0, 0.5))
                        proxy.restore()
                    case _:
                        proxy.cut()
                await trio.sleep(random.uniform(0.0, 0.3))
            for node in cluster.nodes:
                proxy_of(node).restore()

    await under(cluster, fault)


async def claim_replies_lost(cluster: Cluster, trials: int = 3) -> None:
    """The claim is executed and its answer does not come: in time for a retry, or not at all."""
    await warm_up(cluster)
    for number in range(trials):
        await _lose_claim_reply(cluster, for_good=number % 2 == 1)
    await cluster.settle()


async def _lose_claim_reply(cluster: Cluster, *, for_good: bool, tries: int = 5) -> None:
    node = cluster.nodes[0]
    session = cluster.session()
    chats: list[Chat] = []

    async def start() -> None:
        chats.append(await cluster.start(node, session, seconds=0.2))

    proxy = proxy_of(node)
    with cluster.fault("replies lost", node):
        async with trio.open_nursery() as nursery:
            # A claim is more than one round trip: replies are slow, so that the last one can be caught on its way.
            proxy.delay(0.15)
            nursery.start_soon(start)
            await cluster.wait(
                lambda: chats or cluster.session_record(session).get("state") == "RUNNING", "claimed or refused"
            )
            if chats and chats[0].status == 503 and tries > 1:
                # On a busy machine slow replies are too slow: nothing was claimed, so there is no reply to lose.
                proxy.restore()
                await _lose_claim_reply(cluster, for_good=for_good, tries=tries - 1)
                return
            if chats:
                cluster.stuck(f"session {session}: its start was answered before its claim was")
            proxy.hold_replies()
            proxy.cut()
            if for_good:
                await cluster.wait(lambda: chats, "an answer to a start whose claim gets none")
            proxy.restore()
    [chat] = chats
    if chat.status != (503 if for_good else 200):
        cluster.stuck(f"a start whose claim got no answer at first was answered {chat.status} {chat.code}")
    await cluster.wait_done(chat)
    await node.wait_ready()
    await cluster.wait_done(await until_claimed(cluster, session))


async def until_claimed(cluster: Cluster, session: str) -> Chat:
    """Ask until the session is given; it must be within a lease and a little."""
    limit = time.monotonic() + cluster.timings.lease + 1.0
    while True:
        chat = await cluster.start(cluster.nodes[-1], session, seconds=0.0)
        if chat.status == 200 or time.monotonic() > limit:
            if chat.status != 200:
                cluster.stuck(f"session {session} stays blocked: {chat.status} {chat.code}")
            return chat
        await trio.sleep(0.05)


async def stop_replies_lost(cluster: Cluster, trials: int = 4) -> None:
    """The stop is executed and its caller does not hear of it; the run must end even so, and asking again helps."""
    await warm_up(cluster)
    owner, other = cluster.nodes[:2]
    for _ in range(trials):
        [chat] = await start_chats(cluster, 1, on=owner)
        with cluster.fault("replies lost", other):
            proxy_of(other).hold_replies()
            await cluster.stop(other, session=chat.session)
            with trio.move_on_after(cluster.timings.heartbeat + 1.0) as scope:
                await chat.done.wait()
            if scope.cancelled_caught:
                cluster.stuck(f"run {chat.run}: a stop that Redis has executed did not end it")
            proxy_of(other).restore()
        await other.wait_ready()
        again = await cluster.stop(other, run=chat.run)
        if again.status != 200 or again.state != "STOPPED":
            cluster.stuck(f"a stop asked again after its end was answered {again}")
    await cluster.settle()


async def heartbeat_replies_lost(cluster: Cluster, trials: int = 6) -> None:
    """Renewals are executed and their answers are lost, or late: runs go on."""
    node = cluster.nodes[0]
    chats = await start_chats(cluster, 4, on=node)

    for number in range(trials):
        # One comes through before each that does not: the second shows that the first was answered.
        await wait_renewed(cluster, chats)
        await wait_renewed(cluster, chats)
        with cluster.fault("replies lost", node):
            proxy_of(node).hold_replies()
            # The answer that is caught may be that of the renewal just seen; then there is no next one.
            with trio.move_on_after(cluster.timings.heartbeat):
                await wait_renewed(cluster, chats)
            if number % 2:
                proxy_of(node).cut()
            proxy_of(node).restore()
    for chat in chats:
        if chat.done.is_set():
            cluster.stuck(
                f"run {chat.run} has ended, since answers to renewals were lost: {chat.state} {chat.code}"
            )
        await cluster.stop_until_over(chat)
    await cluster.settle()


async def finish_replies_lost(cluster: Cluster, trials: int = 3) -> None:
    """The end is written and its answer comes late: what was written holds, and is what the client sees."""
    await warm_up(cluster)
    node = cluster.nodes[0]
    for _ in range(trials):
        chat = await cluster.start(node, cluster.session(), seconds=0.3, period=0.02)
        await chat.begun.wait()
        with cluster.fault("replies lost", node):
            proxy_of(node).hold_replies()
            await cluster.wait(
                lambda chat=chat: cluster.run_record(chat.session, chat.run).get("state") in TERMINAL, "finished"
            )
            proxy_of(node).restore()
        await cluster.wait_done(chat)
        if chat.state != "FINISHED":
            cluster.stuck(f"run {chat.run} has returned, and ended as {chat.state} {chat.code}")
        await node.wait_ready()
    await cluster.settle()


async def finish_replies_lost_for_a_lease(cluster: Cluster, leases: float = 1.3) -> None:
    """As above, for longer than the lease lasts: the client may wait, but it must not be told another end."""
    await warm_up(cluster)
    node = cluster.nodes[0]
    chats = [await cluster.start(node, cluster.session(), seconds=0.3, period=0.02) for _ in range(3)]
    for chat in chats:
        await chat.begun.wait()
    with cluster.fault("replies lost", node):
        proxy_of(node).hold_replies()
        over = time.monotonic() + leases * cluster.timings.lease
        while time.monotonic() < over:
            await trio.sleep(0.05)
        proxy_of(node).restore()
    for chat in chats:
        await cluster.wait_done(chat)
    await node.wait_ready()
    await cluster.settle()


async def same_run_asked_of_a_node_that_is_cut_off(cluster: Cluster, trials: int = 1) -> None:
    """A client repeats its request, run id and all, on a node whose claim gets no answer: the run goes on."""
    await warm_up(cluster)
    owner, other = cluster.nodes[:2]
    for _ in range(trials):
        [chat] = await start_chats(cluster, 1, on=owner)
        with cluster.fault("replies lost", other):
            proxy_of(other).hold_replies()
            again = await cluster.start(other, chat.session, chat.run)
            if again.status == 200:
                cluster.stuck(f"run {chat.run} was started twice")
            proxy_of(other).restore()
        await other.wait_ready()
        cluster.sample([chat.session])
        record = cluster.run_record(chat.session, chat.run)
        if record.get("state") != "RUNNING":
            cluster.stuck(f"run {chat.run} runs, and its record says {record}")
        stop = await cluster.stop(owner, session=chat.session)
        await wait_accepted(cluster, chat, stop)
        await end(cluster, chat)
        # The refusal of the second request is not one of the run itself.
        cluster.history.starts.remove(
            next(start for start in cluster.history.starts if (start.node, start.run) == (other.name, chat.run))
        )
    await cluster.settle()
