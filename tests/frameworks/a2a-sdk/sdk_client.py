"""A client made with the Python SDK of A2A. Does one thing, and prints what it has seen as JSON.

python sdk_client.py URL BINDING SCENARIO ARGUMENTS...
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from a2a.client import ClientConfig, ClientFactory
from a2a.client.card_resolver import A2ACardResolver
from a2a.types import (
    CancelTaskRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import A2AError


def state_of(number: int) -> str:
    return TaskState.Name(number).removeprefix("TASK_STATE_").lower().replace("_", "-")


def text_of(holder: Any) -> str:
    return "".join(part.text for part in holder.parts)


def asked(text: str, task: str = "", context: str = "", **configuration: Any) -> SendMessageRequest:
    message = Message(
        message_id=uuid4().hex, role=Role.ROLE_USER, parts=[Part(text=text)], task_id=task, context_id=context
    )
    return SendMessageRequest(message=message, configuration=SendMessageConfiguration(**configuration))


class Seen:
    """What a stream has sent."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.states: list[str] = []
        self.text = ""
        self.task = ""
        self.context = ""
        self.said = ""

    def take(self, response: Any) -> None:
        kind = response.WhichOneof("payload")
        self.kinds.append(kind)
        item = getattr(response, kind)
        if kind == "task":
            self.task, self.context = item.id, item.context_id
            self._state(item.status)
            self.text = "".join(text_of(artifact) for artifact in item.artifacts)
        elif kind == "status_update":
            self._state(item.status)
        elif kind == "artifact_update":
            self.text += text_of(item.artifact)
        else:
            self.said = text_of(item)

    def _state(self, status: Any) -> None:
        self.states.append(state_of(status.state))
        if status.HasField("message"):
            self.said = text_of(status.message)

    def report(self) -> dict[str, Any]:
        return {**vars(self), "state": self.states[-1] if self.states else None}


async def read(stream: Any, seen: Seen) -> Seen:
    async for response in stream:
        seen.take(response)
    return seen


class Scenarios:
    def __init__(self, url: str, binding: str, http: httpx.AsyncClient) -> None:
        self.url, self.binding, self.http = url, binding, http

    async def connect(self, *, streaming: bool = True) -> Any:
        self.card = await A2ACardResolver(self.http, self.url).get_agent_card()
        config = ClientConfig(
            streaming=streaming, httpx_client=self.http, supported_protocol_bindings=[self.binding]
        )
        return ClientFactory(config).create(self.card)

    async def card_(self) -> Any:
        await self.connect()
        return {
            "name": self.card.name,
            "streaming": self.card.capabilities.streaming,
            "skills": [each.id for each in self.card.skills],
        }

    async def send(self, text: str, task: str = "", context: str = "") -> Any:
        client = await self.connect(streaming=False)
        return (await read(client.send_message(asked(text, task, context)), Seen())).report()

    async def stream(self, text: str, task: str = "", context: str = "") -> Any:
        client = await self.connect()
        return (await read(client.send_message(asked(text, task, context)), Seen())).report()

    async def subscribe(self, gate: str) -> Any:
        """Leave a stream in its middle, and read the rest by a subscription."""
        client = await self.connect()
        first = Seen()
        async for response in client.send_message(asked(f"gate {Path(gate).name}")):
            first.take(response)
            if first.text:
                break
        again = Seen()
        async for response in client.subscribe(SubscribeToTaskRequest(id=first.task)):
            again.take(response)
            Path(gate).touch()  # noqa: ASYNC240  nothing else runs here
        return {**again.report(), "before": first.text}

    async def cut(self, number: str) -> Any:
        """Print `cut me` once; when the connection has failed, read the rest by a subscription."""
        client = await self.connect()
        seen, failed = Seen(), False
        try:
            async for response in client.send_message(asked(f"steps {number}")):
                seen.take(response)
                if seen.text.endswith("9 ") and len(seen.text) == 20:
                    print("cut me", flush=True)  # noqa: T201  the test waits for it
        except A2AError:
            failed = True
        before = seen.text
        await read(client.subscribe(SubscribeToTaskRequest(id=seen.task)), seen)
        return {**seen.report(), "failed": failed, "before": before}

    async def cancel(self) -> Any:
        client = await self.connect()
        seen = Seen()
        canceled = None
        async for response in client.send_message(asked("wait")):
            seen.take(response)
            if seen.text and canceled is None:
                canceled = await client.cancel_task(CancelTaskRequest(id=seen.task))
        got = await client.get_task(GetTaskRequest(id=seen.task))
        return {**seen.report(), "canceled": state_of(canceled.status.state), "got": state_of(got.status.state)}

    async def list(self) -> Any:
        client = await self.connect(streaming=False)
        seen = [await read(client.send_message(asked(f"say {word}")), Seen()) for word in ("one", "two", "three")]
        page = await client.list_tasks(ListTasksRequest(page_size=2))
        rest = await client.list_tasks(ListTasksRequest(page_size=2, page_token=page.next_page_token))
        mine = await client.list_tasks(ListTasksRequest(context_id=seen[0].context, include_artifacts=True))
        return {
            "pages": [len(page.tasks), len(rest.tasks)],
            "total": page.total_size,
            "mine": [text_of(task.artifacts[0]) for task in mine.tasks],
        }

    async def push(self) -> Any:
        posted: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

        async def hook(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length:")[2].split("\r\n")[0])
            body = json.loads(await reader.readexactly(size))
            token = head.partition("x-a2a-notification-token:")[2].split("\r\n")[0].strip()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
            writer.close()
            await posted.put((token, body))

        server = await asyncio.start_server(hook, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = await self.connect(streaming=False)
        config = TaskPushNotificationConfig(id="c1", url=f"http://127.0.0.1:{port}/hook", token="sesame")
        seen = await read(client.send_message(asked("say hi", task_push_notification_config=config)), Seen())
        states, tokens = [], set()
        while "TASK_STATE_COMPLETED" not in states:
            token, body = await asyncio.wait_for(posted.get(), 20)
            tokens.add(token)
            found = body.get("task", body.get("statusUpdate", {})).get("status", {}).get("state")
            states.append(found)
        server.close()
        kept = await client.get_task_push_notification_config(
            GetTaskPushNotificationConfigRequest(task_id=seen.task, id="c1")
        )
        return {"tokens": sorted(tokens), "kept": kept.url == config.url}

    async def errors(self) -> Any:
        client = await self.connect()
        done = await read(client.send_message(asked("say hi")), Seen())

        async def refused(call: Any) -> str:
            try:
                await call
            except A2AError as error:
                return type(error).__name__.removesuffix("Error")
            return "nothing"

        return {
            "unknown": await refused(client.get_task(GetTaskRequest(id="no-such-task"))),
            "ended": await refused(client.cancel_task(CancelTaskRequest(id=done.task))),
            "terminal": await refused(read(client.send_message(asked("say more", done.task)), Seen())),
            "subscribed": await refused(read(client.subscribe(SubscribeToTaskRequest(id=done.task)), Seen())),
        }


async def main(url: str, binding: str, scenario: str, *arguments: str) -> None:
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        chosen = getattr(Scenarios(url, binding, http), scenario + "_" * (scenario == "card"))
        print(json.dumps(await chosen(*arguments)))  # noqa: T201  the test reads it


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
