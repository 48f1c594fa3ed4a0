"""The app that is measured. A request names the kind of chat in `model`; `rate` and `count` stand beside.

With `BENCH_ASYNCIO` in the environment the same handler runs on the asyncio loop. `replaced.py` is the same agent
on the replaced product.
"""

import argparse
import asyncio
import os
import time

import trio

from trio_agentapp import AgentApp

DELTA = "token "

FRAMEWORK = "asyncio" if os.environ.get("BENCH_ASYNCIO") else "text"
sleep = asyncio.sleep if FRAMEWORK == "asyncio" else trio.sleep

app = AgentApp(app_name="bench")


@app.query(framework=FRAMEWORK)
async def chat(self, msgs, request=None, run=None, **kwargs):  # noqa: ARG001 - every handler may be written so
    # Each protocol has its own place for fields that it does not know.
    of_a2a = request.extra.get("a2a", {}).get("metadata")
    fields = of_a2a or request.extra.get("forwarded_props") or request.extra.get("body") or request.extra
    count = fields.get("count", 100)
    match request.model or fields.get("model"):
        case "slow":
            # Each delta says when it was made, on the clock that the client reads too.
            pause = 1 / fields.get("rate", 20)
            for _ in range(count):
                await sleep(pause)
                yield f"{DELTA}@{time.perf_counter():.6f} "
        case "burst":
            for _ in range(count):
                await sleep(0)
                yield DELTA
        case "burst-never-awaiting":
            for _ in range(count):
                yield DELTA
        case "idle":
            yield DELTA
            await sleep(86_400)
        case other:
            raise ValueError(f"no such kind of chat: {other!r}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--workers", type=int, default=1)
    options = arguments.parse_args()
    app.run(host="127.0.0.1", port=options.port, workers=options.workers)
