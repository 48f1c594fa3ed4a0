"""A program with one traced app; the argument names what it does. OpenTelemetry's provider is one for a process."""

from __future__ import annotations

import sys
from typing import Any

import trio
from opentelemetry import trace

from trio_agentapp import AgentApp
from trio_agentapp.agents import Agent, ChatModel, Tool
from trio_agentapp.tasks.local import MAX_RUNNING
from trio_agentapp.telemetry import configure_logging
from trio_agentapp.testing.model_server import call, model_server

OTHER_TRACE = "1af7651916cd43dd8448eb211c80319c"
HEADERS = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
BODY = {"input": "What time is it?", "stream": False, "user_id": "anna", "session_id": "s-anna"}


def note(name: str) -> None:
    trace.get_tracer("user").start_span(name).end()


async def ask(app: AgentApp, body: Any = BODY, headers: Any = HEADERS) -> Any:
    response = await app.test_client().post("/process", json=body, headers=headers)
    return await response.get_json()


async def agent() -> None:
    def clock(city: str) -> str:
        note("inside the tool")
        return f"noon in {city}"

    async with model_server([call("clock", city="Rome")], ["It is noon."]) as server:
        async with ChatModel("scripted", base_url=server.url) as model:
            app = AgentApp(app_name="Friday", agent=Agent(model, tools=[Tool(clock)]))
            configure_logging(app.log_format)
            async with app.runtime():
                assert (await ask(app))["status"] == "completed"
        for headers in server.headers:
            sys.stderr.write(f"traceparent {headers['traceparent']}\n")


async def context() -> None:
    app = AgentApp(app_name="Friday")

    @app.query()
    async def chat(self: Any, msgs: Any, run: Any) -> Any:
        done = trio.Event()

        async def child() -> None:
            note("in a child task")
            done.set()

        run.start_soon(child)
        await done.wait()
        await trio.to_thread.run_sync(note, "in a thread")
        yield "done"

    other = AgentApp(app_name="Sync")

    @other.query()
    def sync_chat(msgs: Any) -> str:
        note("in a sync handler")
        return "done"

    third = AgentApp(app_name="Asyncio")

    @third.query("asyncio")
    async def asyncio_chat(msgs: Any) -> Any:
        import asyncio

        async def child() -> None:
            note("in an asyncio task")

        await asyncio.create_task(child())
        yield "done"

    for each in (app, other, third):
        async with each.runtime():
            assert (await ask(each))["status"] == "completed"


async def stop() -> None:
    app = AgentApp(app_name="Friday")
    started = trio.Event()

    @app.query()
    async def chat(self: Any, run: Any) -> Any:
        yield "one"
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(0.01)

    async with app.runtime(), trio.open_nursery() as nursery:
        nursery.start_soon(ask, app)
        await started.wait()
        assert (await app.stop_chat("anna", "s-anna", wait=True)).stopped


async def tasks() -> None:
    app = AgentApp(app_name="Friday")
    configure_logging(app.log_format)
    full = trio.Event()
    begun: list[None] = []

    @app.task("/work")
    async def work(data: Any) -> None:
        note("inside the task")
        begun.append(None)
        await full.wait()

    @app.task("/fail")
    def fail(data: Any) -> None:
        raise ValueError("private")

    @app.task("/fill")
    async def fill(data: Any) -> None:
        begun.append(None)
        await full.wait()

    @app.task("/later")
    def later(data: Any) -> None: ...

    other = {"traceparent": f"00-{OTHER_TRACE}-b7ad6b7169203331-01"}
    async with app.runtime():
        client = app.test_client()
        answer = await client.post("/fail", json={}, headers=HEADERS)
        await until_ended(client, await answer.get_json(), "/fail")
        await client.post("/work", json={}, headers=HEADERS)
        for _ in range(MAX_RUNNING - 1):
            await client.post("/fill", json={})
        while len(begun) < MAX_RUNNING:
            await trio.sleep(0.01)
        answer = await client.post("/later", json={}, headers=other)
        full.set()
        await until_ended(client, await answer.get_json(), "/later")


async def until_ended(client: Any, task: Any, path: str) -> None:
    while (await (await client.get(f"{path}/{task['task_id']}")).get_json())["ended_at"] is None:
        await trio.sleep(0.01)


async def failure() -> None:
    app = AgentApp(app_name="Friday")
    configure_logging(app.log_format)

    @app.query()
    async def chat(self: Any, run: Any) -> Any:
        raise ValueError("private")

    async with app.runtime():
        assert (await ask(app))["status"] == "failed"


async def twice() -> None:
    app = AgentApp(app_name="Friday", agent=lambda: "hello")
    for _ in range(2):
        async with app.runtime():
            await ask(app, headers={})


if __name__ == "__main__":
    trio.run(globals()[sys.argv[1]])
