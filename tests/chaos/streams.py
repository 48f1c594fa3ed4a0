"""Scenarios of readers: cut at random bytes, left by the node of their run, and shown what a stop left behind."""

from __future__ import annotations

import random

import trio

from .client import Broken, call
from .cluster import TIMEOUT, Cluster, Node
from .load import repeat
from .reader import Reader, check_same, check_whole, folded

__all__ = ["events_in_memory_elsewhere", "output_after_stops", "readers_cut", "readers_of_killed_owners"]

EVENTS = 200

SIZE = 190
"""Bytes of an event of `count` on the wire, about."""


async def readers_cut(cluster: Cluster, runs: int) -> None:
    """Each run is read without a cut where it runs, and over 5 to 20 cuts at any node; both see the same bytes."""

    async def trial(cluster: Cluster, session: str) -> None:
        owner = cluster.any_node()
        whole = Reader(cluster.history)
        cut = Reader(cluster.history, whole.run)
        period = random.choice((0.0, 0.001, 0.003))
        cuts = random.randint(5, 20)

        async def read_whole() -> None:
            status = await whole.start(
                owner, session, do="count", events=EVENTS, period=period, on_disconnect="continue"
            )
            assert status == 200, status

        async def read_cut() -> None:
            await whole.begun.wait()
            if random.random() < 0.3:
                # One that names an event which never was harms nobody else.
                nursery.start_soon(astray, random.choice(cluster.nodes))
            await cut.read_with_cuts(cluster.nodes, cuts, EVENTS * SIZE)

        async def astray(node: Node) -> None:
            await Reader(cluster.history, whole.run).attach(node, after=10**6)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_whole)
                nursery.start_soon(read_cut)
            check_whole(cluster, whole)
            check_whole(cluster, cut)
            check_same(cluster, whole, cut)
            await check_after_the_end(cluster, whole)

    await repeat(cluster, runs, trial)


async def check_after_the_end(cluster: Cluster, seen: Reader) -> None:
    """All nodes replay the same, from anywhere; behind the last event there is nothing."""
    for node in cluster.nodes:
        again = Reader(cluster.history, seen.run)
        await again.attach(node)
        check_same(cluster, seen, again)
        after = random.randrange(len(seen.frames) - 1)
        rest = Reader(cluster.history, seen.run)
        await rest.attach(node, after=after)
        if rest.frames != seen.frames[after + 1 :] or rest.gaps:
            cluster.flaw("E1", f"run {seen.run}: {node.name} replays {rest.numbers[:3]}... behind {after}")
        if (status := await Reader(cluster.history, seen.run).attach(node, after=seen.last)) != 204:
            cluster.flaw("E1", f"run {seen.run}: {node.name} answers {status} behind the last event")
        status, told = await call(node.port, "GET", f"/runs/{seen.run}/wait")
        if status != 200 or told != seen.end:
            cluster.flaw("E1", f"run {seen.run}: {node.name} answers /wait with {status} {str(told)[:300]}")


async def readers_of_killed_owners(cluster: Cluster, _runs: int) -> dict[str, float]:
    """kill -9: readers elsewhere get the terminal event, owner_lost, within L + R, behind all that anybody saw."""
    owner, *others = cluster.nodes
    readers: list[Reader] = []
    waited: dict[str, tuple[int, dict[str, object]]] = {}
    left_alone = Reader(cluster.history)

    async def wait_elsewhere(run: str, node: Node) -> None:
        waited[run] = await call(node.port, "GET", f"/runs/{run}/wait")

    async def read_there(reader: Reader, session: str) -> None:
        with trio.CancelScope():
            try:
                await reader.start(owner, session, do="count", events=10**6, period=0.002, on_disconnect="continue")
            except Broken:
                return

    at_owner = [Reader(cluster.history) for _ in range(6)]
    async with trio.open_nursery() as nursery:
        for reader in [*at_owner, left_alone]:
            nursery.start_soon(read_there, reader, cluster.session())
            await reader.begun.wait()
        for reader in at_owner:
            elsewhere = Reader(cluster.history, reader.run)
            readers.append(elsewhere)
            nursery.start_soon(elsewhere.attach, random.choice(others))
            nursery.start_soon(wait_elsewhere, reader.run, random.choice(others))
        for reader in readers:
            await reader.begun.wait()
        await trio.sleep(random.uniform(0.2, 1.0))
        died_at = await cluster.kill(owner)
        with trio.move_on_after(cluster.timings.lease + cluster.timings.reaper + 5) as scope:
            while any(not reader.over for reader in readers) or len(waited) < len(at_owner):
                await trio.sleep(0.01)
        if scope.cancelled_caught:
            cluster.stuck(f"of {len(readers)} readers {sum(reader.over for reader in readers)} saw the end")
        nursery.cancel_scope.cancel()
    took = 0.0
    for there, reader in zip(at_owner, readers, strict=True):
        check_whole(cluster, reader)
        if not reader.over:
            continue
        took = max(took, reader.times[-1] - died_at)
        if reader.end["error"]["code"] != "owner_lost":
            cluster.flaw("E1", f"run {reader.run} ends for its reader with {reader.end}")
        if there.last >= reader.last or there.frames != reader.frames[: len(there.frames)]:
            cluster.flaw("E1 lost", f"run {reader.run}: {there.last} was shown there, {reader.last} is the end")
        if waited.get(reader.run) != (200, reader.end):
            cluster.flaw("E1", f"run {reader.run}: /wait was told {waited.get(reader.run)}")
        again = Reader(cluster.history, reader.run)
        await again.attach(random.choice(others))
        check_same(cluster, reader, again)
    if took > cluster.timings.lease + cluster.timings.reaper + 1.0:
        cluster.flaw("L1", f"readers were told {took:.2f} s after the death")
    # Of the one that nobody read elsewhere, everything that was shown can still be read.
    again = Reader(cluster.history, left_alone.run)
    await again.attach(random.choice(others))
    check_whole(cluster, again)
    if left_alone.frames != again.frames[: len(left_alone.frames)]:
        cluster.flaw("E1 lost", f"run {left_alone.run}: {left_alone.last} was shown, {again.last} is the end")
    return {"seconds from the death to the last event at most": round(took, 2)}


async def output_after_stops(cluster: Cluster, runs: int) -> None:
    """Stopped at a random moment: the output of the terminal event is what a client has folded, calls closed."""

    async def trial(cluster: Cluster, session: str) -> None:
        owner = cluster.any_node()
        one = Reader(cluster.history)
        other = Reader(cluster.history, one.run)

        async def read_elsewhere() -> None:
            await one.begun.wait()
            await other.read_with_cuts(cluster.nodes, random.randint(0, 3) or 1, 4000)

        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: one.start(owner, session, do="mixed"))
                nursery.start_soon(read_elsewhere)
                await one.begun.wait()
                await trio.sleep(random.uniform(0.0, 0.2))
                await cluster.stop(random.choice(cluster.nodes), run=one.run)
        check_whole(cluster, one)
        check_whole(cluster, other)
        check_same(cluster, one, other)
        check_output(cluster, one)

    await repeat(cluster, runs, trial)


def check_output(cluster: Cluster, reader: Reader) -> None:
    end = reader.end
    held = [
        (
            message["id"],
            message["role"],
            message["type"],
            [(p["type"], p.get("data"), p["text"]) for p in message["parts"]],
        )
        for message in folded(reader)
    ]
    told = [
        (
            message["id"],
            message["role"],
            message["type"],
            [(p["type"], p.get("data"), p.get("text", "")) for p in message["content"]],
        )
        for message in end["output"]
    ]
    if held != told:
        cluster.flaw("partial output", f"run {reader.run}: a client holds {held}, the end tells {told}")
    calls = {p[1]["call_id"] for each in told if each[2] == "function_call" for p in each[3]}
    answers = [p[1]["call_id"] for each in told if each[2] == "function_call_output" for p in each[3]]
    if calls != set(answers) or len(answers) != len(set(answers)):
        cluster.flaw("partial output", f"run {reader.run}: calls {calls}, outputs {answers}")


async def events_in_memory_elsewhere(cluster: Cluster, runs: int) -> None:
    """Events in the memory of one node: elsewhere they are refused; after its death a gap and the end are told."""
    owner, other = cluster.nodes
    readers = [Reader(cluster.history) for _ in range(runs)]

    async def read_there(reader: Reader) -> None:
        try:
            await reader.start(owner, cluster.session(), period=0.02, on_disconnect="continue")
        except Broken:
            return

    async with trio.open_nursery() as nursery:
        for reader in readers:
            nursery.start_soon(read_there, reader)
            await reader.begun.wait()
            for path in ("stream", "wait"):
                status, told = await call(other.port, "GET", f"/runs/{reader.run}/{path}")
                if (status, told.get("code")) != (409, "elsewhere") or not told.get("node"):
                    cluster.flaw("E1", f"run {reader.run}: {other.name} answers /{path} with {status} {told}")
        await cluster.kill(owner)
    await trio.sleep(cluster.timings.lease + cluster.timings.reaper + 1.0)
    for reader in readers:
        seen, rest = reader.last, Reader(cluster.history, reader.run)
        await rest.attach(other, after=seen)
        if [number for number, _ in rest.frames] != [seen + 2] or rest.gaps != [(seen + 1, seen + 1)]:
            cluster.flaw("E1", f"run {reader.run}: behind {seen} come {rest.frames} and the gaps {rest.gaps}")
        elif rest.end["error"]["code"] != "owner_lost":
            cluster.flaw("E1", f"run {reader.run} ends with {rest.end}")
        status, told = await call(other.port, "GET", f"/runs/{reader.run}/wait")
        if (status, told.get("status")) != (200, "failed"):
            cluster.flaw("E1", f"run {reader.run}: {other.name} answers /wait with {status} {told}")
