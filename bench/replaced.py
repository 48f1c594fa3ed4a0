"""The same agent on the replaced product, agentscope-runtime 1.1.6, started the way its documentation says.

Runs in a virtual environment of its own, see `environment.py`. The kinds of chat are those of `measured.py`.
"""

import argparse
import asyncio
import os
import time

from agentscope_runtime.engine import AgentApp, Runner

DELTA = "token "


class Agent(Runner):
    """`@app.query` has no framework for plain text; a runner has."""

    def __init__(self) -> None:
        super().__init__()
        self.framework_type = "text"

    async def query_handler(self, request=None, response=None, **kwargs):  # noqa: ARG002 - it is called by name
        count = request.count
        match request.model:
            case "slow":
                pause = 1 / request.rate
                for _ in range(count):
                    await asyncio.sleep(pause)
                    yield f"{DELTA}@{time.perf_counter():.6f} "
            case "burst":
                for _ in range(count):
                    await asyncio.sleep(0)
                    yield DELTA
            case "burst-never-awaiting":
                for _ in range(count):
                    yield DELTA
            case "idle":
                yield DELTA
                await asyncio.Event().wait()
            case other:
                raise ValueError(f"no such kind of chat: {other!r}")


app = AgentApp(app_name="bench", runner=Agent(), interrupt_redis_url=os.environ.get("BENCH_REDIS_URL"))


@app.post("/stop")
async def stop(body: dict) -> dict:
    """It has no route for stops: its documentation has the user write this one."""
    await app.stop_chat(user_id=body["user_id"], session_id=body["session_id"])
    return {"status": "ok"}


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, default=0)
    app.run(host="127.0.0.1", port=arguments.parse_args().port)
