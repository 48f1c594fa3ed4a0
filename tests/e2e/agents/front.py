"""An agent for front ends: it does what the last message of the user says, in every form that front ends show."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import trio

from trio_agentapp import (
    AgentApp,
    AgentRequest,
    DataContent,
    Message,
    Principal,
    Rejected,
    Run,
    TextContent,
    Timings,
)
from trio_agentapp.protocol.content import ImageContent
from trio_agentapp.protocol.message_json import message_fields

FOLDER = Path(os.environ.get("FOLDER", "/tmp"))
OPTIONS = json.loads(os.environ.get("AGENT_OPTIONS", "{}"))
if "timings" in OPTIONS:
    OPTIONS["timings"] = Timings(**OPTIONS["timings"])


def authenticate(request: Any) -> Principal | None:
    """Users prove who they are by a token that is their name; without one they are everybody."""
    return Principal(request.headers.get("Authorization", "Bearer all").removeprefix("Bearer "))


if OPTIONS.pop("guarded", False):
    OPTIONS["authenticate"] = authenticate
app = AgentApp(app_name="Front", max_body_bytes=64 * 1024, read_timeout=1.0, **OPTIONS)


def mark(text: str) -> None:
    with (FOLDER / "marks").open("a") as file:
        file.write(text + "\n")


@app.query()
async def chat(msgs: list[Message], request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    said = msgs[-1].text if msgs else ""
    mark(f"start {run.session_id}")
    try:
        async for item in act(said, msgs, request, run):
            yield item
    except trio.Cancelled:
        mark(f"stopped {run.session_id}")
        raise


async def act(said: str, msgs: list[Message], request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    match said:
        case "fast":
            for number in range(200):
                yield f"w{number} "
        case "think":
            yield (Message(type="reasoning", content="Let me ", id="r-1"), False)
            yield (Message(type="reasoning", content="Let me see.", id="r-1"), True)
            yield "It is "
            yield "done."
            run.usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "model": "m"}
        case "tools":
            yield "I look. "
            for call in grown("call-1", "weather", '{"city": "Rome"}', 5):
                yield call
            yield Message.tool_output("call-1", {"sun": True})
            yield Message.tool_call("weather", {"city": "Oslo"}, "call-2")
            yield Message.tool_output("call-2", "rain")
            yield "It is sunny."
        case "call of the front end":
            tools = request.tools or [{"function": {"name": "confirm"}}]
            yield Message.tool_call(tools[0]["function"]["name"], {"x": 1}, f"call-{run.run_id[:8]}")
        case "state":
            run.state["step"] = 0
            yield "a"
            for number in range(1, 4):
                with run.state.edit() as state:
                    state["step"] = number
                    state.setdefault("log", []).append(number)
                await trio.sleep(0.06)
            yield f"theme {run.state.get('theme')}"
        case "media":
            yield Message(
                content=[TextContent("see "), ImageContent("https://example.org/a.png"), TextContent("that")]
            )
            yield DataContent({"type": "source-url", "url": "https://example.org", "title": "Example"})
            yield DataContent({"type": "data-weather", "id": "w1", "data": {"sun": True}})
            yield DataContent([1, 2])
            yield Message(type="error", code="E1", message="so so")
            yield Message(type="plan", content=[DataContent({"steps": 3})])
        case "slow":
            yield "begin "
            await trio.sleep(3600)
        case "ticks":
            for number in range(30):
                yield f"t{number} "
                await trio.sleep(0.05)
        case "approve":
            yield "May I? "
            answer = await run.ask("Delete all?", schema=bool)
            yield f"approved: {answer.approved}"
        case "choose":
            yield "Hm. "
            answer = await run.ask("Which?", schema=Literal["red", "blue"])
            yield f"chosen: {answer.value}"
            answer = await run.ask("Sure?", schema=bool)
            yield f" sure: {answer.value}"
        case "impatient":
            try:
                await run.ask("Quick?", timeout=0.2)
            except trio.TooSlowError:
                yield "too slow"
        case "break":
            yield "half "
            raise RuntimeError("secret of the server")
        case "reject":
            yield "well "
            raise Rejected("I do not answer this.")
        case "lost call":
            yield Message.tool_call("weather", {}, "call-lost")
            await trio.sleep(3600)
        case "messages":
            fields = [message_fields(message) for message in msgs[:-1]]
            yield json.dumps({"messages": fields, "extra": request.extra, "tools": request.tools})
        case _:
            yield f"you said: {said or msgs[-1].content[0].data}"


def grown(call_id: str, name: str, arguments: str, size: int) -> list[Any]:
    """A tool call that grows: its arguments in pieces."""
    pieces = [{"call_id": call_id, "name": name, "arguments": ""}]
    pieces += [{"arguments": arguments[start : start + size]} for start in range(0, len(arguments), size)]
    return [
        (Message(type="function_call", id="msg-" + call_id), False),
        *(
            DataContent(piece, delta=True)
            for piece in [{"call_id": call_id, "name": name, "arguments": ""}, *pieces]
        ),
    ]


if __name__ == "__main__":
    app.run(port=0)
