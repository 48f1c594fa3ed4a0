"""The full numbers of tasks on Celery: `python -m tests.chaos.tasks`, or `make chaos-tasks`.

Each round gives 100 tasks to two workers and stops 30 of them midway; in every second one a fault comes meanwhile.
A finished round is kept in `results/`, and counts as long as the product's code is the one it was taken with.
"""

# ruff: noqa: T201  its output is what it is for

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import trio

from trio_agentapp.testing.redis_server import RedisServer

from ..e2e.celery_worker import Worker, look, submit
from ..e2e.harness import Server
from .run import RESULTS, digest

ROUNDS = 40
TASKS, STOPPED = 100, 30
QUICK = ("/square", "/add")
LONG = ("/long", "/long_sync", "/long_flag", "/long_items")
WITHIN = 120.0

OPTIONS = json.dumps({"drain_timeout": 1})


@attrs.define(kw_only=True)
class Outcome:
    """`wrong`: what must not be; the others count what was."""

    fault: str
    seconds: float
    finished: int = 0
    cancelled: int = 0
    shutdown: int = 0
    lost: int = 0
    wrong: list[str] = attrs.field(factory=list)


@attrs.define
class Round:
    """The processes of one round, and what was given to them."""

    redis: RedisServer
    server: Server
    workers: list[Worker]
    folder: Path
    given: dict[str, tuple[str, Any]] = attrs.field(factory=dict)

    def start_worker(self) -> None:
        self.workers.append(Worker(self.redis.url, self.folder, AGENT_OPTIONS=OPTIONS))

    async def see_through(self, path: str, body: Any, dice: random.Random) -> None:
        """Give a task; if it is a long one, stop it as soon as it runs."""
        task_id = await self.insist(lambda: submit(self.server, path, body))
        self.given[task_id] = (path, body)
        if path in LONG:
            while (await self.state_of(task_id))["status"] == "pending":
                await trio.sleep(0.02)
            await trio.sleep(dice.uniform(0, 0.1))
            await self.insist(lambda: self.cancel(path, task_id))

    async def cancel(self, path: str, task_id: str) -> None:
        answer = await self.server.call("POST", f"{path}/{task_id}/cancel")
        assert answer.status in (200, 202), answer

    async def state_of(self, task_id: str) -> dict[str, Any]:
        path = self.given[task_id][0]
        state: dict[str, Any] = await self.insist(lambda: look(self.server, path, task_id))
        return state

    async def insist(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask again while Redis cannot be reached."""
        while True:
            try:
                return await ask()
            except AssertionError as error:
                if "backend_unavailable" not in str(error):
                    raise
                await trio.sleep(0.1)

    async def judge(self, outcome: Outcome) -> None:
        marks = Counter(self.server.marks)
        for task_id, (path, body) in self.given.items():
            state = await self.state_of(task_id)
            begun, cleaned = marks[f"begin {task_id}"], marks[f"cleaned {task_id}"]
            status, code = state["status"], state.get("error", {}).get("code")
            faults = []
            if begun > 1 or cleaned > begun:
                faults.append(f"begun {begun} times, cleaned up {cleaned} times")
            match status, code:
                case "finished", None if path in QUICK:
                    outcome.finished += 1
                    right = {"result": body["x"] ** 2} if path == "/square" else body["a"] + 1
                    if state["result"] != right or begun != 1:
                        faults.append(f"result {state['result']!r}")
                case "cancelled", "stopped" if path in LONG:
                    outcome.cancelled += 1
                case "cancelled", "shutdown" if outcome.fault == "worker told to leave":
                    outcome.shutdown += 1
                case "failed", "worker_lost" if outcome.fault in ("worker killed", "Redis paused"):
                    outcome.lost += 1
                case _:
                    faults.append(f"{status}, {code}")
            if status == "cancelled" and path in LONG and cleaned != begun:
                faults.append("reported cancelled, and not cleaned up")
            outcome.wrong += [f"{task_id} of {path}: {fault}" for fault in faults]


async def nothing(_round: Round) -> None:
    await trio.lowlevel.checkpoint()


async def kill_worker(round_: Round) -> None:
    round_.workers[0].kill()
    round_.start_worker()


async def end_worker(round_: Round) -> None:
    round_.workers[0].send_signal(signal.SIGTERM)
    round_.start_worker()
    await round_.workers[0].wait_exit(60)


async def pause_redis(round_: Round) -> None:
    round_.redis.pause()
    await trio.sleep(1.5)
    round_.redis.resume()


FAULTS: dict[str, Callable[[Round], Awaitable[None]]] = {
    "none": nothing,
    "worker killed": kill_worker,
    "worker told to leave": end_worker,
    "Redis paused": pause_redis,
}
ORDER = ("none", "worker killed", "none", "worker told to leave", "none", "Redis paused")


async def play(number: int, fault: str) -> Outcome:
    dice = random.Random(number)
    began = time.monotonic()
    outcome = Outcome(fault=fault, seconds=0)
    async with RedisServer("valkey") as redis:
        with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
            folder = Path(name)
            server = Server("tasks", "run", folder, {"REDIS_URL": redis.url, "AGENT_OPTIONS": OPTIONS})
            stack.callback(server.kill)
            round_ = Round(redis, server, [], folder)
            stack.callback(lambda: [worker.kill() for worker in round_.workers])
            for _ in range(2):
                round_.start_worker()
            await trio.to_thread.run_sync(server.wait_ready)
            for worker in round_.workers:
                await trio.to_thread.run_sync(worker.wait_ready)
            work: list[tuple[str, Any]] = [
                (path, {"x": each} if path == "/square" else {"a": each})
                for each, path in zip(range(TASKS - STOPPED), itertools.cycle(QUICK), strict=False)
            ]
            work += [(path, {}) for path in dice.choices(LONG, k=STOPPED)]
            dice.shuffle(work)
            with trio.fail_after(WITHIN):
                async with trio.open_nursery() as nursery:
                    for path, body in work:
                        nursery.start_soon(round_.see_through, path, body, dice)
                    await trio.sleep(dice.uniform(0.1, 1.5))
                    await FAULTS[fault](round_)
                for task_id in round_.given:
                    while (await round_.state_of(task_id))["status"] in ("pending", "running"):
                        await trio.sleep(0.05)
            if len(round_.given) != TASKS:
                outcome.wrong.append(f"{len(round_.given)} tasks")
            await round_.judge(outcome)
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description="Give tasks to Celery workers, stop some, and break things.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--again", action="store_true", help="take them anew")
    given = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    code = digest()
    outcomes = []
    for number in range(given.rounds):
        path = RESULTS / f"celery-tasks.{number}.json"
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_text())
            if found.pop("code") == code and not given.again:
                outcomes.append(Outcome(**found))
                continue
        fault = ORDER[number % len(ORDER)]
        outcome = trio.run(play, number, fault)
        print(f"round {number + 1} of {given.rounds}, {fault}: {outcome.seconds:g} s, {len(outcome.wrong)} wrong")
        print(*(f"    {each}" for each in outcome.wrong[:10]), sep="\n", end="\n" if outcome.wrong else "")
        path.write_text(json.dumps({"code": code, **attrs.asdict(outcome)}))
        outcomes.append(outcome)
    for fault in FAULTS:
        those = [outcome for outcome in outcomes if outcome.fault == fault]
        sums = {
            name: sum(getattr(outcome, name) for outcome in those)
            for name in ("finished", "cancelled", "shutdown", "lost")
        }
        wrong = sum(len(outcome.wrong) for outcome in those)
        print(f"{fault}: {len(those)} rounds, {sums}, wrong {wrong}")
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
