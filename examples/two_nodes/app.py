"""An agent for several nodes. They share a Redis, so a chat on one node can be stopped on another.

REDIS_URL=redis://127.0.0.1:6379 PORT=8091 python examples/two_nodes/app.py
"""

import os

import trio

from trio_agentapp import AgentApp

app = AgentApp(
    app_name="Counter",
    interrupt_redis_url=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"),
    drain_timeout=2,
)


@app.query()
async def count():
    for number in range(1, 1001):
        yield f"{number} "
        await trio.sleep(0.2)


if __name__ == "__main__":
    app.run()
