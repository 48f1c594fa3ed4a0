"""An agent whose runs and tasks are traced. A chat may be passed on to another agent, by AgentClient."""

from __future__ import annotations

import os
from typing import Any

import trio
from opentelemetry import trace

from trio_agentapp import AgentApp, AgentClient, AgentRequest

REDIS = os.environ["REDIS_URL"]

app = AgentApp(
    app_name=os.environ["NAME"],
    interrupt_redis_url=REDIS,
    broker_url=os.environ.get("BROKER"),
    backend_url=os.environ.get("BROKER"),
    enable_embedded_worker="BROKER" in os.environ,
    traces=True,
)


@app.query()
async def chat(request: AgentRequest) -> Any:
    yield "hello "
    if other := request.extra.get("ask"):
        async with AgentClient(other) as client:
            async with client.run({"input": "wait", "wait": True}) as events:
                async for _ in events:
                    yield "passed on "
    if request.extra.get("wait"):
        await trio.sleep_forever()


@app.task("/work")
def work(data: Any) -> Any:
    trace.get_tracer("user").start_span("inside the task").end()
    if data.get("fail"):
        raise ValueError("private")
    return "done"


if __name__ == "__main__":
    app.run()
