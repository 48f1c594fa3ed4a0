"""Tasks: long calls whose result is read later.

python examples/tasks/app.py                                        in this process
REDIS_URL=redis://127.0.0.1:6379/0 python examples/tasks/app.py     by Celery workers
"""

import os

import trio

from trio_agentapp import AgentApp, current_task

REDIS_URL = os.environ.get("REDIS_URL")

app = AgentApp(
    app_name="Calculator",
    broker_url=REDIS_URL,
    backend_url=REDIS_URL,
    enable_embedded_worker=REDIS_URL is not None,
    drain_timeout=2,
)


@app.task("/longjob", queue="celery")
def heavy_computation(data):
    return {"result": data["x"] ** 2}


@app.task("/watch")
async def watch(seconds: float, name: str = "kettle"):
    try:
        await trio.sleep(seconds)
    except trio.Cancelled:
        async with current_task().cleanup():
            await trio.sleep(0.1)
            print(f"Nobody waits for the {name} any more.", flush=True)
        raise
    return f"the {name} boils"


if __name__ == "__main__":
    app.run()
