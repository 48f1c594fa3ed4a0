"""Kill -9 in the middle of 200 saves: `python -m tests.stores.kills [--trials N]`, or `make kills`.

A process saves, and is killed at a random moment; then its states and histories are looked at. Each must be whole,
and what was acknowledged must be there: of the session in which the process died the old version or the new one. In
the third kind the Redis server is killed instead, which logs each write before it answers (appendfsync always).

Trials already taken with the product's present code are not taken again: it may be interrupted at any time.
"""

# ruff: noqa: T201  its output is what it is for

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from tests.chaos.run import digest
from tests.stores.saver import SESSIONS, is_whole
from trio_agentapp.protocol.ids import new_run_id
from trio_agentapp.stores import open_stores
from trio_agentapp.testing.redis_server import RedisServer

RESULTS = Path(__file__).parent / "results"
KINDS = ("sqlite", "redis", "redis-server")
SAVES = 200

JITTER = 0.004
"""Seconds at most from the acknowledgement of a random save to the kill; some saves take as long."""


class Saver:
    """The process, and what it has acknowledged."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self.acknowledged = -1
        self.progress = trio.lowlevel.ParkingLot()
        self.process: trio.Process | None = None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        script = str(Path(__file__).with_name("saver.py"))
        command = [sys.executable, script, self.url, self.prefix, "user", str(SAVES)]
        async with trio.open_nursery() as nursery:
            start = partial(
                trio.run_process, command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
            )
            process: trio.Process = await nursery.start(start)
            self.process = process
            assert process.stdout is not None
            task_status.started()
            text = b""
            async for piece in process.stdout:
                text += piece
                lines = text.split(b"\n")[:-1]
                if lines and lines[-1] != b"ready":
                    self.acknowledged = int(lines[-1])
                    self.progress.unpark_all()


async def trial(kind: str, url: str, server: RedisServer | None, prefix: str) -> tuple[int, list[str]]:
    """How many saves were acknowledged, and what was wrong."""
    saver = Saver(url, prefix)
    async with trio.open_nursery() as nursery:
        await nursery.start(saver.run)
        assert saver.process is not None
        with trio.fail_after(30):
            victim = random.randrange(SAVES)
            while saver.acknowledged < victim:
                await saver.progress.park()
        await trio.sleep(random.random() * JITTER)
        if kind == "redis-server":
            assert server is not None
            await server.kill()
        saver.process.kill()
    if kind == "redis-server":
        assert server is not None
        await server._start()
    return saver.acknowledged, [text async for text in faults(url, prefix, saver.acknowledged)]


async def faults(url: str, prefix: str, acknowledged: int) -> AsyncIterator[str]:
    async with open_stores(url, prefix=prefix) as stores:
        for session in range(SESSIONS):
            old = acknowledged - (acknowledged - session) % SESSIONS
            possible = {old, acknowledged + 1} if (acknowledged + 1) % SESSIONS == session else {old}
            state = await stores.states.load("user", str(session))
            n = -1 if state is None else state["n"]
            if state is not None and not is_whole(state):
                yield f"the state of session {session} is torn"
            if max(n, -1) not in {max(each, -1) for each in possible}:
                yield f"session {session} has state {n} after {acknowledged} was acknowledged"
            texts = [message.text for message in await stores.sessions.history("user", str(session))]
            turns = [int(text.split()[1]) for text in texts[::2]]
            if texts != [f"user {turn} {place}" for turn in turns for place in "ab"]:
                yield f"the history of session {session} has a torn turn"
            last = turns[-1] if turns else -1
            if turns != list(range(session, last + 1, SESSIONS)) or last not in {max(e, -1) for e in possible}:
                yield f"session {session} has turns {turns} after {acknowledged} was acknowledged"


@asynccontextmanager
async def place_of(kind: str) -> AsyncIterator[tuple[str, RedisServer | None]]:
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/states.db", None
    else:
        options = [("appendfsync", "always")]
        async with RedisServer(appendonly=kind == "redis-server", options=options) as server:
            yield server.url, server


async def take(kind: str, trials: int) -> AsyncIterator[tuple[int, list[str]]]:
    async with place_of(kind) as (url, server):
        for _ in range(trials):
            at = url if kind != "sqlite" else url.replace("states.db", f"{new_run_id()}.db")
            yield await trial(kind, at, server, new_run_id())


async def main(trials: int) -> int:
    RESULTS.mkdir(exist_ok=True)
    clean = True
    for kind in KINDS:
        path = RESULTS / f"kills.{kind}.json"
        code = digest()
        known = json.loads(path.read_text()) if path.exists() else {}
        kept = known if known.get("code") == code else {"code": code, "acknowledged": [], "faults": []}
        began = time.monotonic()
        taken = take(kind, trials - len(kept["acknowledged"]))
        async for acknowledged, wrong in taken:
            kept["acknowledged"].append(acknowledged + 1)
            kept["faults"] += wrong
            path.write_text(json.dumps(kept))
        saves = sorted(kept["acknowledged"])
        middle = sum(0 < count < SAVES for count in saves)
        print(
            f"{kind}: {len(saves)} kills, {middle} of them in the middle of the saves, "
            f"half of them after at most {saves[len(saves) // 2]}; {len(kept['faults'])} faults",
            f"({time.monotonic() - began:.0f} s)",
            *kept["faults"][:10],
            sep="\n    ",
        )
        clean = clean and not kept["faults"]
    return 0 if clean else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill processes in the middle of their saves.")
    parser.add_argument("--trials", type=int, default=int(os.environ.get("TRIALS", "200")), help="of each kind")
    sys.exit(trio.run(main, parser.parse_args().trials))
