"""A client made with the Python SDK of A2A 0.3. Does one thing, and prints what it has seen as JSON.

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
from a2a.client.errors import A2AClientError, A2AClientJSONRPCError
from a2a.types import (
    GetTaskPushNotificationConfigParams,
    Message,
    MessageSendConfiguration,
    Part,
    PushNotificationConfig,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskIdParams,
    TaskQueryParams,
    TextPart,
)

NAMES = {-32001: "TaskNotFound", -32002: "TaskNotCancelable", -32004: "UnsupportedOperation"}


def text_of(parts: Any) -> str:
    return "".join(part.root.text for part in parts if part.root.kind == "text")


def asked(text: str, task: str = "", context: str = "") -> Message:
    return Message(
        message_id=uuid4().hex,
        role=Role.user,
        parts=[Part(root=TextPart(text=text))],
        task_id=task or None,
        context_id=context or None,
    )


class Seen:
    """What a stream has sent."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.states: list[str] = []
        self.text = ""
        self.task = ""
        self.context = ""
        self.said = ""

    def take(self, item: Any) -> None:
        if isinstance(item, Message):
            self.kinds.append("message")
            self.said = text_of(item.parts)
            return
        task, update = item
        self.task, self.context = task.id, task.context_id
        if update is None:
            self.kinds.append("task")
            self.text = "".join(text_of(artifact.parts) for artifact in task.artifacts or ())
            self._state(task.status)
        elif isinstance(update, TaskArtifactUpdateEvent):
            self.kinds.append("artifact_update")
            self.text += text_of(update.artifact.parts)
        else:
            self.kinds.append("status_update")
            self._state(update.status)

    def _state(self, status: Any) -> None:
        self.states.append(status.state.value)
        if status.message is not None:
            self.said = text_of(status.message.parts)

    def report(self) -> dict[str, Any]:
        return {**vars(self), "state": self.states[-1] if self.states else None}


async def read(stream: Any, seen: Seen) -> Seen:
    async for item in stream:
        seen.take(item)
    return seen


class Scenarios:
    def __init__(self, url: str, binding: str, http: httpx.AsyncClient) -> None:
        self.url, self.binding, self.http = url, binding, http

    async def connect(self, *, streaming: bool = True) -> Any:
        self.card = await A2ACardResolver(self.http, self.url).get_agent_card()
        config = ClientConfig(streaming=streaming, httpx_client=self.http, supported_transports=[self.binding])
        return ClientFactory(config).create(self.card)

    async def card_(self) -> Any:
        await self.connect()
        skills = [each.id for each in self.card.skills]
        return {"name": self.card.name, "streaming": self.card.capabilities.streaming, "skills": skills}

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
        async for item in client.send_message(asked(f"gate {Path(gate).name}")):
            first.take(item)
            if first.text:
                break
        again = Seen()
        async for item in client.resubscribe(TaskIdParams(id=first.task)):
            again.take(item)
            Path(gate).touch()  # noqa: ASYNC240  nothing else runs here
        return {**again.report(), "before": first.text}

    async def cut(self, number: str) -> Any:
        """Print `cut me` once; when the connection has failed, read the rest by a subscription."""
        client = await self.connect()
        seen, failed = Seen(), False
        try:
            async for item in client.send_message(asked(f"steps {number}")):
                seen.take(item)
                if seen.text.endswith("9 ") and len(seen.text) == 20:
                    print("cut me", flush=True)  # noqa: T201  the test waits for it
        except A2AClientError:
            failed = True
        before = seen.text
        await read(client.resubscribe(TaskIdParams(id=seen.task)), seen)
        return {**seen.report(), "failed": failed, "before": before}

    async def cancel(self) -> Any:
        client = await self.connect()
        seen = Seen()
        canceled = None
        async for item in client.send_message(asked("wait")):
            seen.take(item)
            if seen.text and canceled is None:
                canceled = await client.cancel_task(TaskIdParams(id=seen.task))
        got = await client.get_task(TaskQueryParams(id=seen.task))
        return {**seen.report(), "canceled": canceled.status.state.value, "got": got.status.state.value}

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
        config = PushNotificationConfig(id="c1", url=f"http://127.0.0.1:{port}/hook", token="sesame")
        wanted = MessageSendConfiguration(push_notification_config=config)
        seen = await read(client.send_message(asked("say hi"), configuration=wanted), Seen())
        tokens, state = set(), ""
        while state != "completed":
            token, body = await asyncio.wait_for(posted.get(), 20)
            tokens.add(token)
            state = Task.model_validate(body).status.state.value
        server.close()
        kept = await client.get_task_callback(
            GetTaskPushNotificationConfigParams(id=seen.task, push_notification_config_id="c1")
        )
        return {"tokens": sorted(tokens), "kept": kept.push_notification_config.url == config.url}

    async def errors(self) -> Any:
        client = await self.connect()
        done = await read(client.send_message(asked("say hi")), Seen())

        async def refused(call: Any) -> str:
            try:
                await call
            except A2AClientJSONRPCError as error:
                return NAMES.get(error.error.code, str(error))
            return "nothing"

        return {
            "unknown": await refused(client.get_task(TaskQueryParams(id="no-such-task"))),
            "ended": await refused(client.cancel_task(TaskIdParams(id=done.task))),
            "terminal": await refused(read(client.send_message(asked("say more", done.task)), Seen())),
            "subscribed": await refused(read(client.resubscribe(TaskIdParams(id=done.task)), Seen())),
        }


async def main(url: str, binding: str, scenario: str, *arguments: str) -> None:
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        chosen = getattr(Scenarios(url, binding, http), scenario + "_" * (scenario == "card"))
        print(json.dumps(await chosen(*arguments)))  # noqa: T201  the test reads it


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
