"""A process that saves, to be killed: `saver.py URL PREFIX USER SAVES`.

Save number n goes to session n % SESSIONS, as a state with a checksum and as a turn of two messages. When both are
kept, "n" is written to stdout. With SHARED_SESSION in the environment each also goes to a session of all savers.
"""

# ruff: noqa: T201  its output is what it is for

from __future__ import annotations

import hashlib
import os
import random
import sys
from typing import Any

import trio

from trio_agentapp.protocol.message import Message
from trio_agentapp.stores import Stores, open_stores

SESSIONS = 4


def state_of(n: int) -> dict[str, Any]:
    """A state of up to 60 KB: some fit in a page or a packet, and some do not."""
    pieces = [random.randbytes(20).hex() for _ in range(random.choice([0, 3, 300, 1500]))]
    return {"n": n, "pieces": pieces, "sum": hashlib.sha256(f"{n}{''.join(pieces)}".encode()).hexdigest()}


def is_whole(state: Any) -> bool:
    return state["sum"] == hashlib.sha256(f"{state['n']}{''.join(state['pieces'])}".encode()).hexdigest()


async def keep(stores: Stores, user: str, session: str, name: str, n: int) -> None:
    turn = [Message(role="user", content=f"{name} {n} a"), Message(content=f"{name} {n} b")]
    await stores.states.save(user, session, state_of(n))
    await stores.sessions.append(user, session, turn, run_id=f"{name}-{n}", token=1)


async def main(url: str, prefix: str, user: str, saves: int) -> None:
    shared = os.environ.get("SHARED_SESSION")
    async with open_stores(url, prefix=prefix) as stores:
        print("ready", flush=True)
        for n in range(saves):
            await keep(stores, user, str(n % SESSIONS), user, n)
            if shared:
                await keep(stores, "all", shared, user, n)
            print(n, flush=True)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:4], int(sys.argv[4]))
