"""Starts chats and stops them: how soon a stop ends the stream, and how many stops are lost.

    python bench/stops.py latency http://127.0.0.1:8090 http://127.0.0.1:8091
    python bench/stops.py lost http://127.0.0.1:8090 http://127.0.0.1:8090 --by-run

Chats go to the first address, stops to the second. It prints one JSON object.
"""

import argparse
import asyncio
import json
import random
import time
import uuid
from contextlib import suppress
from typing import Any

from client import spread
from reader import Connection
from wire import DELTA, ProtocolError, chat_body

DELAYS_MS = (0, 1, 2, 5, 10, 15, 20)
LOST_AFTER = 1.5
"""Seconds after which a stream that still runs was not stopped; its chat goes on for four."""

BETWEEN = 0.05
"""Seconds between two attempts to lose a stop: they do not disturb each other."""


def slow_chat(name: str) -> dict[str, Any]:
    return chat_body(name, "slow", rate=20, count=80) | {"id": name}


def stop_of(name: str, *, by_run: bool) -> dict[str, Any]:
    """By the session, the only way of the replaced product; with the run's id a stop may precede its run."""
    body = {"user_id": "bench", "session_id": name}
    return body | {"run_id": name} if by_run else body


async def read_to_the_end(chat: Connection, begun: asyncio.Event) -> None:
    # A stopped stream may end without its last chunk.
    with suppress(ProtocolError, OSError):
        async for content in chat.contents():
            if DELTA in content:
                begun.set()


async def latency(chats: str, stops: str) -> float:
    """Milliseconds from sending a stop to the end of the stream, for a chat that has sent its first delta."""
    name, begun = uuid.uuid4().hex, asyncio.Event()
    async with await Connection.open(chats) as chat, await Connection.open(stops) as stop:
        chat.post("/process", slow_chat(name))
        reading = asyncio.create_task(read_to_the_end(chat, begun))
        await asyncio.wait_for(begun.wait(), 10)
        await asyncio.sleep(random.uniform(0, 0.05))  # anywhere between two deltas
        began = time.perf_counter()
        stop.post("/stop", stop_of(name, by_run=False))
        await asyncio.wait_for(reading, 10)
        took = time.perf_counter() - began
        await stop.content()
    return 1000 * took


async def is_lost(chats: str, stops: str, delay: float, *, by_run: bool) -> bool:
    """Whether a chat goes on although it was stopped `delay` seconds after its request."""
    name = uuid.uuid4().hex
    async with await Connection.open(chats) as chat, await Connection.open(stops) as stop:
        chat.post("/process", slow_chat(name))
        reading = asyncio.create_task(read_to_the_end(chat, asyncio.Event()))
        if delay:
            await asyncio.sleep(delay)
        stop.post("/stop", stop_of(name, by_run=by_run))
        await stop.content()
        await asyncio.wait([reading], timeout=LOST_AFTER)
        lost = not reading.done()
        reading.cancel()
    return lost


async def all_latencies(options: argparse.Namespace) -> dict[str, Any]:
    took = [await latency(options.chats, options.stops) for _ in range(options.count)]
    return {"stop_ms": spread(took), "stops": len(took)}


async def all_lost(options: argparse.Namespace) -> dict[str, Any]:
    tries: list[tuple[int, asyncio.Task[bool]]] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(options.count):
            for delay in DELAYS_MS:
                attempt = is_lost(options.chats, options.stops, delay / 1000, by_run=options.by_run)
                tries.append((delay, group.create_task(attempt)))
                await asyncio.sleep(BETWEEN)
    lost = {delay: sum(task.result() for at, task in tries if at == delay) for delay in DELAYS_MS}
    return {"lost": sum(lost.values()), "lost_by_delay_ms": lost, "stops": len(tries)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["latency", "lost"])
    parser.add_argument("chats")
    parser.add_argument("stops")
    parser.add_argument("--count", type=int, default=20, help="stops, or stops for each delay")
    parser.add_argument("--by-run", action="store_true", help="name the run too, not only its session")
    options = parser.parse_args()
    work = all_latencies if options.what == "latency" else all_lost
    print(json.dumps(asyncio.run(work(options))))


if __name__ == "__main__":
    main()
