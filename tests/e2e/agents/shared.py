"""An agent for several processes: which one serves a chat is told by its first delta."""

from __future__ import annotations

import os

import trio

from trio_agentapp import AgentApp, Timings

app = AgentApp(
    app_name="Shared",
    interrupt_redis_url=os.environ.get("REDIS_URL"),
    timings=Timings(
        lease=float(os.environ.get("LEASE", "2")),
        heartbeat=0.3,
        cutoff=1,
        offline_cleanup=0.5,
        margin=0.5,
        call_timeout=0.5,
        reaper=0.5,
    ),
    drain_timeout=1,
    cleanup_budget=5,
)


@app.query()
async def chat(run):
    yield f"{os.getpid()} "
    try:
        while True:
            await trio.sleep(0.05)
            yield "x"
    finally:
        async with run.cleanup():
            await trio.sleep(0.2)
        with open(os.path.join(os.environ["FOLDER"], "marks"), "a") as marks:  # noqa: ASYNC230
            marks.write(f"cleaned {run.session_id}\n")


if __name__ == "__main__":
    app.run(port=0, workers=int(os.environ.get("WORKERS", "1")))
