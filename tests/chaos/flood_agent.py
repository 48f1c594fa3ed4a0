"""The agent that is flooded: its users prove who they are by a token, which is their name."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.lowlevel

from trio_agentapp import AgentApp, Principal

PERIOD = 0.05
"""Seconds between two events of a chat."""


async def authenticate(request: Any) -> Principal | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return Principal(token) if scheme == "Bearer" and token != "wrong" else None


class Turns(trio.abc.Instrument):
    """How long the event loop works in a turn, in nanoseconds of the CPU clock of its thread."""

    began = last = 0

    def after_io_wait(self, timeout: float) -> None:
        self.began = time.thread_time_ns()

    def before_io_wait(self, timeout: float) -> None:
        self.last = time.thread_time_ns() - self.began

    def work_within(self, late: int) -> int:
        """The most that the loop can have worked in the last `late` nanoseconds: the last turn and this one."""
        return min(late, self.last + time.thread_time_ns() - self.began)


turns = Turns()


@asynccontextmanager
async def lifespan(_: AgentApp) -> AsyncIterator[None]:
    trio.lowlevel.add_instrument(turns)
    yield


app = AgentApp(authenticate=authenticate, metrics=True, drain_timeout=0, cleanup_budget=2, lifespan=lifespan)


@app.query()
async def chat(msgs: Any) -> AsyncIterator[str]:
    if msgs[-1].text == "torrent":
        while True:
            yield "x" * 10_000
            await trio.lowlevel.checkpoint()
    due = trio.current_time()
    while True:
        late = int(max(0.0, trio.current_time() - due) * 1e9)
        # When it should have been sent, and how much of the lateness is the server's own work.
        yield f"{time.monotonic_ns() - late} {turns.work_within(late)} "
        due += PERIOD
        await trio.sleep_until(due)


if __name__ == "__main__":
    sys.setswitchinterval(0.001)
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]))
