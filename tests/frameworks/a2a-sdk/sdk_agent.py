"""An agent made with the Python SDK of A2A, served by it. Prints a line for what happens to its tasks.

python sdk_agent.py PORT PUBLIC_URL INTERFACES, such as `JSONRPC 1.0,HTTP+JSON 1.0,JSONRPC 0.3`, and `no-streams`
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvicorn
from a2a.helpers.proto_helpers import (
    new_data_part,
    new_raw_part,
    new_task_from_user_message,
    new_text_message,
    new_text_part,
    new_url_part,
)
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201  the test reads it


class Executor(AgentExecutor):
    """Does what the text of a message says."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        text = context.get_user_input()
        headers = {} if context.call_context is None else context.call_context.state.get("headers", {})
        say("headers", dict(headers))
        say("metadata", dict(context.metadata))
        if text == "bare":
            await event_queue.enqueue_event(new_text_message("just a message", context_id=context.context_id))
            return
        task = context.current_task
        asked = task is not None
        if task is None:
            task = new_task_from_user_message(context.message)
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        if asked:
            await updater.add_artifact([new_text_part(f"sunny in {text}")], artifact_id="weather")
            await updater.complete()
            return
        await updater.start_work(updater.new_agent_message([new_text_part("thinking")]))
        await getattr(self, "_" + text.split()[0], self._echo)(text, updater)

    async def _echo(self, text: str, updater: TaskUpdater) -> None:
        await updater.add_artifact([new_text_part(text)], artifact_id="echo", last_chunk=True)
        await updater.complete()

    async def _count(self, text: str, updater: TaskUpdater) -> None:
        for number in range(1, int(text.split()[1]) + 1):
            await updater.add_artifact([new_text_part(f"{number} ")], artifact_id="numbers", append=number > 1)
            await asyncio.sleep(0.02)
        await updater.complete()

    async def _ask(self, text: str, updater: TaskUpdater) -> None:
        await updater.requires_input(updater.new_agent_message([new_text_part("Which city?")]))

    async def _fail(self, text: str, updater: TaskUpdater) -> None:
        await updater.failed(updater.new_agent_message([new_text_part("it broke")]))

    async def _parts(self, text: str, updater: TaskUpdater) -> None:
        await updater.add_artifact(
            [
                new_text_part("words"),
                new_data_part({"n": 1}),
                new_url_part("https://example.com/a.pdf", media_type="application/pdf"),
                new_raw_part(b"\x89PNG", media_type="image/png"),
            ],
            artifact_id="parts",
        )
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        say("canceled")
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def card(public: str, interfaces: str, *, streams: bool) -> AgentCard:
    pairs = [one.split() for one in interfaces.split(",")]
    paths = {"JSONRPC": "/rpc", "HTTP+JSON": "/rest"}
    return AgentCard(
        name="sdk",
        description="an agent of the SDK",
        version="1",
        supported_interfaces=[
            AgentInterface(url=public + paths[binding], protocol_binding=binding, protocol_version=version)
            for binding, version in pairs
        ],
        capabilities=AgentCapabilities(streaming=streams),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="all", name="all", description="all", tags=["all"])],
    )


def main(port: str, public: str, interfaces: str, *options: Any) -> None:
    served = card(public, interfaces, streams="no-streams" not in options)
    handler = DefaultRequestHandler(Executor(), InMemoryTaskStore(), served)
    routes = [
        *create_agent_card_routes(served),
        *create_jsonrpc_routes(handler, "/rpc", enable_v0_3_compat=True),
        *create_rest_routes(handler, path_prefix="/rest"),
    ]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
