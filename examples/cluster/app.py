"""An agent for a cluster: two nodes, a Valkey, Celery workers and Prometheus. See README.md.

Without any of these it runs alone: python examples/cluster/app.py
"""

import os

import trio

from trio_agentapp import AgentApp

# Its other settings are variables: see agents.env.example.
SHARED = "AGENTAPP_INTERRUPT_REDIS_URL" in os.environ

app = AgentApp(app_name="agents", event_store="redis" if SHARED else "local", metrics=True, drain_timeout=60)


@app.query()
async def count(run):
    for number in range(1, 101):
        yield f"{number} "
        await trio.sleep(0.2)


@app.task("/squares", queue="celery")
def square(data):
    return {"result": data["x"] ** 2}


if __name__ == "__main__":
    app.run()
