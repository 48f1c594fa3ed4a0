"""Requests of an OpenAI client as plain HTTP, and the frames of its streams."""

from __future__ import annotations

import json
from typing import Any

from ..e2e.harness import Answer, Client, Server

__all__ = ["Stream", "chat", "chunks_of", "events_of", "respond", "text_of"]


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The events of a streamed response: each frame has a name, which is its type, and one line of data."""
    events = []
    for frame in body.decode().split("\n\n"):
        if not frame or frame.startswith(":"):
            continue
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def chunks_of(body: bytes) -> list[dict[str, Any]]:
    """The chunks of a streamed completion, which ends with [DONE]."""
    frames = [frame for frame in body.decode().split("\n\n") if frame and not frame.startswith(":")]
    assert frames[-1] == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]


async def respond(server: Server, input: Any, status: int = 200, **fields: Any) -> Any:
    """Create a response; returns its events, or its JSON."""
    return await _post(server, "/v1/responses", {"input": input, **fields}, status, events_of)


async def chat(server: Server, messages: Any, status: int = 200, **fields: Any) -> Any:
    """Create a chat completion; returns its chunks, or its JSON."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return await _post(server, "/v1/chat/completions", {"messages": messages, **fields}, status, chunks_of)


async def _post(server: Server, path: str, body: Any, status: int, read: Any) -> Any:
    answer = await server.call("POST", path, body)
    assert answer.status == status, answer
    if (answer.header("content-type") or "").startswith("text/event-stream"):
        assert answer.header("x-run-id")
        return read(answer.body)
    return answer.json()


def text_of(response: dict[str, Any]) -> str:
    """The text of a response."""
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part.get("text", "") for part in parts)


class Stream:
    """A streamed response that is read event by event."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._head: Answer | None = None
        self._body = b""
        self.events: list[dict[str, Any]] = []

    async def read(self, count: int) -> list[dict[str, Any]]:
        """Read until there are so many events."""
        with self._client.server.deadline(15, f"{count} events"):
            if self._head is None:
                self._head = await self._client.head()
                assert self._head.status == 200, self._head
            while len(self.events) < count:
                piece = await self._client.data()
                assert piece, self.events
                self._body += piece
                whole, _, self._body = self._body.rpartition(b"\n\n")
                self.events += events_of(whole)
        return self.events

    @property
    def id(self) -> str:
        return str(self.events[0]["response"]["id"])
