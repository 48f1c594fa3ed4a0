"""What the tests of the protocols of front ends share: requests, and the frames of their answers."""

from __future__ import annotations

import json
from typing import Any

from .harness import Answer, Server, fresh

__all__ = ["ag_ui", "ask_ag_ui", "ask_ai_sdk", "chat_body", "frames_of", "text_of", "ui"]


def ag_ui(text: str, *, thread: str | None = None, **fields: Any) -> dict[str, Any]:
    said = [{"id": "m1", "role": "user", "content": text}]
    return {"threadId": thread or fresh("thread"), "runId": fresh("run"), "messages": said, **fields}


def ui(text: str, id: str = "m1") -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}


def chat_body(text: str, *, chat: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": chat or fresh("chat"), "messages": [ui(text)], "trigger": "submit-message", **fields}


def frames_of(answer: Answer) -> list[Any]:
    """The JSON of each frame; the text of one that has none."""
    assert answer.status == 200, answer
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert answer.body.startswith(b": stream\n")
    lines = [line.removeprefix("data: ") for line in answer.body.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line) if line.startswith("{") else line for line in lines]


async def ask_ag_ui(server: Server, body: Any, **options: Any) -> list[Any]:
    return frames_of(await server.call("POST", "/ag-ui", body, **options))


async def ask_ai_sdk(server: Server, body: Any, **options: Any) -> list[Any]:
    answer = await server.call("POST", "/ai-sdk/chat", body, **options)
    assert answer.header("x-vercel-ai-ui-message-stream") == "v1"
    return frames_of(answer)


def text_of(frames: list[Any]) -> str:
    """All that was said, in either protocol."""
    kinds = ("TEXT_MESSAGE_CONTENT", "text-delta")
    return "".join(frame["delta"] for frame in frames if isinstance(frame, dict) and frame["type"] in kinds)
