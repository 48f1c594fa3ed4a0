"""Scenarios of sessions that are busy: requests that wait, that interrupt, that give up, and whose node dies."""

from __future__ import annotations

import random
from typing import Any

import trio

from .client import Broken, call
from .cluster import TIMEOUT, Cluster, Node
from .history import Stop
from .load import repeat
from .reader import Reader, check_same, check_whole

__all__ = [
    "interrupts_at_once",
    "interrupts_around_a_turn",
    "places_are_left",
    "places_of_dead_nodes",
    "requests_wait_in_line",
]

PLACES = 16


class _Asked:
    """One request, read to its end by a task of its own."""

    def __init__(self, cluster: Cluster, nursery: trio.Nursery, node: Node, session: str, **more: Any) -> None:
        self.cluster = cluster
        self.node = node
        self.session = session
        self.reader = Reader(cluster.history)
        self.status = 0
        self.answered = trio.Event()
        self.over = trio.Event()
        nursery.start_soon(self._ask, more)

    @property
    def run(self) -> str:
        return self.reader.run

    async def _ask(self, more: dict[str, Any]) -> None:
        try:
            self.status = await self.reader.start(self.node, self.session, **more)
        except Broken:
            pass
        finally:
            self.answered.set()
            self.over.set()

    async def wait_queued(self) -> None:
        """Until it has a place; another that asks now comes behind it."""
        await self.cluster.wait(lambda: self.run in queue(self.cluster, self.session), f"in line: {self.run}")

    async def wait_over(self, seconds: float = TIMEOUT) -> None:
        with trio.move_on_after(seconds) as scope:
            await self.over.wait()
        if scope.cancelled_caught:
            self.cluster.stuck(f"run {self.run} on {self.node.name} has not ended in {seconds:g} s")
            self.reader.hang_up()

    def expect(self, status: str, message: str | None = None) -> None:
        end = self.reader.end if self.reader.over else None
        told = end and (end["status"], (end["error"] or {}).get("message"))
        if told is None or told[0] != status or message not in (None, told[1]):
            self.cluster.flaw("line", f"run {self.run} on {self.node.name}: {told}, not {status}, {message}")


def queue(cluster: Cluster, session: str) -> list[str]:
    return list(cluster.redis.zrange(cluster._base(session) + "q", 0, -1))


def entered(cluster: Cluster, session: str) -> list[str]:
    cluster.history.read_lines(cluster.folder / "lines")
    return [line.run for line in cluster.history.lines if line.session == session and line.what == "enter"]


async def first_run(cluster: Cluster, nursery: trio.Nursery, session: str, **more: Any) -> _Asked:
    first = _Asked(cluster, nursery, cluster.any_node(), session, **more)
    await first.reader.begun.wait()
    return first


async def requests_wait_in_line(cluster: Cluster, trials: int) -> None:
    """Fill the queue from any node: the runs execute one after the other, in the order of their requests."""

    async def trial(cluster: Cluster, session: str) -> None:
        async with trio.open_nursery() as nursery:
            first = await first_run(cluster, nursery, session)
            waiting = []
            for _ in range(random.choice((3, PLACES))):
                asked = _Asked(
                    cluster, nursery, cluster.any_node(), session, multitask_strategy="enqueue", seconds=0.03
                )
                await asked.wait_queued()
                waiting.append(asked)
            if len(waiting) == PLACES:
                for node in cluster.nodes:
                    late = _Asked(cluster, nursery, node, session, multitask_strategy="enqueue")
                    await late.wait_over()
                    if late.status != 429:
                        cluster.flaw("line", f"the {PLACES + 1}th in line was answered {late.status}")
            hopeless = _Asked(
                cluster, nursery, cluster.any_node(), session, multitask_strategy="reject", seconds=0.0
            )
            await hopeless.wait_over()
            if hopeless.status != 409:
                cluster.flaw("line", f"a request that does not wait was answered {hopeless.status}")
            await cluster.stop(cluster.any_node(), session=session, run=first.run)
            for asked in waiting:
                await asked.wait_over()
                asked.expect("completed")
                check_whole(cluster, asked.reader)
        order = entered(cluster, session)[-len(waiting) - 1 :]
        if order != [first.run, *[asked.run for asked in waiting]]:
            cluster.flaw("line", f"session {session}: asked {[asked.run for asked in waiting]}, ran {order}")

    await repeat(cluster, trials, trial)


async def places_are_left(cluster: Cluster, trials: int) -> None:
    """Of those in line some are stopped, from any node, leave, or run out of time: none of them begins."""

    async def trial(cluster: Cluster, session: str) -> None:
        async with trio.open_nursery() as nursery:
            first = await first_run(cluster, nursery, session)
            gone, kept = [], []
            for _ in range(5):
                how = random.choice(("stop", "cancel", "leave", "time", "stay"))
                more = {"timeout_s": 0.5} if how == "time" else {}
                asked = _Asked(
                    cluster,
                    nursery,
                    cluster.any_node(),
                    session,
                    multitask_strategy="enqueue",
                    seconds=0.02,
                    **more,
                )
                await asked.wait_queued()
                if how == "stay":
                    kept.append(asked)
                else:
                    gone.append((how, asked))
            for how, asked in gone:
                await _make_leave(cluster, how, asked)
            for how, asked in gone:
                if how != "leave":
                    await asked.wait_over()
            await cluster.wait(
                lambda: sorted(queue(cluster, session)) == sorted(asked.run for asked in kept), "left the line"
            )
            for how, asked in gone:
                await _check_left(cluster, how, asked)
            await cluster.stop(cluster.any_node(), run=first.run)
            for asked in kept:
                await asked.wait_over()
                asked.expect("completed")
        if begun := set(entered(cluster, session)) & {asked.run for _, asked in gone}:
            cluster.flaw("line", f"session {session}: these had left the line and began: {begun}")

    await repeat(cluster, trials, trial)


async def _make_leave(cluster: Cluster, how: str, asked: _Asked) -> None:
    if how == "stop":
        await cluster.stop(cluster.any_node(), run=asked.run)
    elif how == "leave":
        asked.reader.hang_up()
    elif how == "cancel":
        node = cluster.any_node()
        status, told = await call(node.port, "POST", f"/runs/{asked.run}/cancel")
        if status not in (200, 202):
            cluster.flaw("line", f"{node.name} answered the cancelling of {asked.run} with {status} {told}")
        cluster.history.stops.append(Stop(t0=0.0, t1=0.0, run=asked.run, target=asked.run))


async def _check_left(cluster: Cluster, how: str, asked: _Asked) -> None:
    reason = {"time": "deadline_exceeded", "leave": "disconnected"}.get(how, "stopped_before_start")
    _, told = await call(cluster.any_node().port, "GET", f"/runs/{asked.run}")
    if told.get("reason") != reason:
        cluster.flaw("line", f"run {asked.run} left the line ({how}), and is shown as {told}")
    if how == "leave":
        return
    check_whole(cluster, asked.reader)
    for node in cluster.nodes:
        again = Reader(cluster.history, asked.run)
        await again.attach(node)
        check_same(cluster, asked.reader, again)


async def places_of_dead_nodes(cluster: Cluster, _trials: int) -> dict[str, float]:
    """A node is killed, another is told to stop: what waited there loses its place."""
    owner, killed, ended, staying = cluster.nodes
    session = cluster.session()
    async with trio.open_nursery() as nursery:
        first = _Asked(cluster, nursery, owner, session)
        await first.reader.begun.wait()
        asked = {}
        for node in (killed, ended, staying):
            asked[node.name] = _Asked(cluster, nursery, node, session, multitask_strategy="enqueue", seconds=0.05)
            await asked[node.name].wait_queued()
        dying = asked[killed.name]
        dying.reader.hang_up()
        await killed.kill()
        await cluster.terminate(ended)
        await asked[ended.name].wait_over()
        asked[ended.name].expect("canceled", "shutdown")
        began = trio.current_time()
        await cluster.stop(owner, run=first.run)
        last = asked[staying.name]
        await last.wait_over()
        last.expect("completed")
        took = trio.current_time() - began
    if took > cluster.timings.lease + 2.0:
        cluster.flaw("line", f"the place of a dead node was kept for {took:.2f} s")
    if entered(cluster, session) != [first.run, last.run]:
        cluster.flaw("line", f"{entered(cluster, session)} began, and only {first.run} and {last.run} could")
    return {"seconds a dead place was kept at most": round(took, 2)}


async def interrupts_at_once(cluster: Cluster, trials: int, *, waiting: int = 4, at_once: int = 20) -> None:
    """So many that interrupt, before so many in line: the last of them runs to its end, and then those in line."""

    async def trial(cluster: Cluster, session: str) -> None:
        async with trio.open_nursery() as nursery:
            first = await first_run(cluster, nursery, session, cleanup=0.3)
            line = []
            for _ in range(waiting):
                asked = _Asked(
                    cluster, nursery, cluster.any_node(), session, multitask_strategy="enqueue", seconds=0.03
                )
                await asked.wait_queued()
                line.append(asked)
            interrupting = [
                _Asked(
                    cluster,
                    nursery,
                    cluster.any_node(),
                    session,
                    multitask_strategy="interrupt",
                    seconds=0.5,
                    cleanup=0.02,
                )
                for _ in range(at_once)
            ]
            for asked in (first, *interrupting, *line):
                await asked.wait_over()
            _note_stops(cluster, [first, *interrupting])
        first.expect("canceled")
        for asked in line:
            asked.expect("completed")
        accepted = [asked for asked in interrupting if asked.status == 200]
        refused = [asked for asked in interrupting if asked.status != 200]
        if {asked.status for asked in refused} - {429} or len(accepted) < PLACES - waiting:
            cluster.flaw("line", f"session {session}: {[asked.status for asked in interrupting]}")
        ends = [asked.reader.end["status"] for asked in accepted if asked.reader.over]
        if sorted(ends) != ["canceled"] * (len(accepted) - 1) + ["completed"]:
            cluster.flaw("line", f"session {session}: those that interrupted ended as {ends}")
        order = entered(cluster, session)
        if order[-waiting:] != [asked.run for asked in line]:
            cluster.flaw("line", f"session {session}: those in line did not run last and in order: {order}")
        for asked in accepted:
            check_whole(cluster, asked.reader)
            again = Reader(cluster.history, asked.run)
            await again.attach(cluster.any_node())
            check_same(cluster, asked.reader, again)

    await repeat(cluster, trials, trial, workers=3)


def _note_stops(cluster: Cluster, stopped: list[_Asked]) -> None:
    """For the checker: these may have been stopped by those that came after them."""
    for asked in stopped:
        cluster.history.stops.append(Stop(t0=0.0, t1=0.0, run=asked.run, target=asked.run))


async def interrupts_around_a_turn(cluster: Cluster, trials: int) -> None:
    """One that interrupts, at the moment of another's turn: that one is stopped in its body, or keeps its place."""

    async def trial(cluster: Cluster, session: str) -> None:
        async with trio.open_nursery() as nursery:
            first = await first_run(cluster, nursery, session, period=0.005)
            line = _Asked(cluster, nursery, cluster.any_node(), session, multitask_strategy="enqueue", seconds=0.05)
            await line.wait_queued()
            await cluster.stop(cluster.any_node(), run=first.run, wait=random.random() < 0.5)
            await trio.sleep(random.uniform(0.0, 0.01))
            soon = _Asked(
                cluster, nursery, cluster.any_node(), session, multitask_strategy="interrupt", seconds=0.02
            )
            began = trio.current_time()
            await soon.wait_over()
            if trio.current_time() - began > 0.9:
                cluster.flaw("line", f"run {soon.run} interrupts, and waited {trio.current_time() - began:.2f} s")
            await line.wait_over()
            _note_stops(cluster, [first, line])
        soon.expect("completed")
        if (line.reader.end["error"] or {}).get("message") == "stopped_before_start":
            cluster.flaw("line", f"run {line.run} waited, and was stopped in line by {soon.run}")

    await repeat(cluster, trials, trial)
