"""An agent that deploys itself: `agent.py MODE LIBRARY [leave]`."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import attrs
import trio

from trio_agentapp import AgentApp
from trio_agentapp.deploy import LocalDeployManager

app = AgentApp(app_name="Counter", drain_timeout=0.2, cleanup_budget=5)


def mark(text: str) -> None:
    with open(os.environ["MARKS"], "a") as marks:
        marks.write(f"{text}\n")


@app.query()
async def count(run):
    try:
        for number in range(10_000):
            yield f"{number} "
            await trio.sleep(0.05)
    finally:
        async with run.cleanup():
            await trio.sleep(0.1)
            mark("cleaned")


@app.get("/told")
async def told():
    names = ("HOST", "PORT", "COLOUR")
    return {"argv": sys.argv[1:], "environment": {name: os.environ.get(name) for name in names}}


async def main() -> None:
    mode = sys.argv[1]
    options = {}
    if mode == "detached_process":
        options = {"environment": {"COLOUR": "blue"}, "args": ["--shape", "round"]}
    manager = LocalDeployManager(port=0, mode=mode)
    deployment = await app.deploy(manager, **options)
    sys.stdout.write(f"{json.dumps(attrs.asdict(deployment))}\n")
    sys.stdout.flush()
    if mode == "daemon_thread" and "leave" not in sys.argv:
        # Until a signal comes.
        if sys.argv[2] == "trio":
            await trio.sleep_forever()
        else:
            await asyncio.sleep(1000)


if __name__ == "__main__":
    if sys.argv[2] == "trio":
        trio.run(main)
    else:
        asyncio.run(main())
