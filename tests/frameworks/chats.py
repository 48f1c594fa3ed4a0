"""What the tests of all frameworks do with chats."""

from __future__ import annotations

from typing import Any

import trio

from trio_agentapp import AgentApp
from trio_agentapp.protocol.content import DataContent, TextContent
from trio_agentapp.protocol.message import Message


def said(end: Any) -> list[tuple[str, Any]]:
    """The type and the text, or the data, of each message of an answer."""
    return [
        (each.type, getattr(each.content[0], "text", None) or getattr(each.content[0], "data", None))
        for each in end.output
    ]


def sent_back(output: Any) -> list[Message]:
    """The messages of a response, as a client sends them back."""
    return [
        Message(
            each.role,
            each.type,
            [DataContent(part.data) if part.type == "data" else TextContent(part.text) for part in each.content],
        )
        for each in output
    ]


async def fifty_stopped(app: AgentApp) -> list[str]:
    """Stop 50 chats at once when each has said its first word, "The "; returns how they have ended."""
    begun = 0
    ends: list[str] = []
    all_talk = trio.Event()

    async def chat(number: int) -> None:
        nonlocal begun
        async with app.stream_query({"input": "hi", "user_id": "u", "session_id": str(number)}) as events:
            async for event in events:
                if getattr(event, "text", "") == "The " and event.delta:
                    begun += 1
                    if begun >= 50:
                        all_talk.set()
        ends.append(event.status)

    with trio.fail_after(60):
        async with app.runtime(), trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(chat, number)
            await all_talk.wait()
            for number in range(50):
                nursery.start_soon(app.stop_chat, "u", str(number))
    return ends
