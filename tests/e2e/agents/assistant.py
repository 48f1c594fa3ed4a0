"""An agent for OpenAI's clients: the last message says what to do."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import trio
from quart import Request

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
from trio_agentapp.protocol.content import FileContent, ImageContent, RefusalContent

OPTIONS = json.loads(os.environ.get("AGENT_OPTIONS", "{}"))
FOLDER = os.environ.get("FOLDER", ".")
TOKENS = {"input_tokens": 11, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 2}}
SECRETS = {"Bearer key-of-ann": "ann", "Bearer key-of-bob": "bob"}


def authenticate(request: Request) -> Principal | None:
    user = SECRETS.get(request.headers.get("Authorization", ""))
    return None if user is None else Principal(user)


app = AgentApp(
    app_name="Test Friday",
    max_body_bytes=200_000,
    drain_timeout=3,
    **({"authenticate": authenticate} if OPTIONS.get("keys") else {}),
    **({"timings": Timings(**OPTIONS["timings"])} if "timings" in OPTIONS else {}),
)


def mark(text: str) -> None:
    with open(f"{FOLDER}/marks", "a") as file:
        file.write(text + "\n")


def call(kind: str, call_id: str, **data: Any) -> Message:
    return Message(
        role="tool" if kind.endswith("_output") else "assistant",
        type=kind,
        content=[DataContent({"call_id": call_id, **data})],
    )


async def words(count: int = 3, pause: float = 0.0) -> AsyncIterator[str]:
    for number in range(count):
        yield f"word{number} "
        await trio.sleep(pause)


@app.query()
async def chat(msgs: list[Message], request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    last = msgs[-1]
    if last.type == "function_call_output":
        yield f"The tool said {last.content[0].data['output']}."
        return
    do = last.text
    match do.split(" ")[0]:
        case "slow" | "endless":
            try:
                async for word in words(40 if do == "slow" else 100_000, 0.02):
                    yield word
            except trio.Cancelled:
                mark(f"stopped {run.session_id}")
                raise
        case "think":
            yield Message.reasoning("First I think."), False
            yield Message.reasoning("First I think. Then I answer."), True
            yield "Thought."
            run.usage = TOKENS
        case "call":
            names = do.split(" ")[1:]
            for place, name in enumerate(names):
                yield (
                    Message(
                        type="function_call",
                        content=[
                            DataContent({"call_id": f"call_{place}", "name": name, "arguments": ""}, delta=True)
                        ],
                    ),
                    False,
                )
                yield Message.tool_call(name, {"city": "Paris"}, f"call_{place}"), True
        case "stream-call":
            yield Message(type="function_call", id="msg_of_the_call"), False
            for piece in ('{"ci', 'ty": ', '"Paris"}'):
                yield DataContent({"call_id": "c1", "name": "weather", "arguments": piece}, delta=True)
        case "own-tools":
            yield "Let me look. "
            yield call("plugin_call", "p1", name="search", arguments='{"q": 1}')
            yield call("plugin_call_output", "p1", name="search", output={"found": [1, 2]})
            yield "Found."
        case "refuse":
            yield RefusalContent("I will ", delta=True)
            yield RefusalContent("not.", delta=True)
        case "show":
            yield TextContent("Look: ")
            yield ImageContent(image_url="https://example.com/i.png")
            yield FileContent(file_url="https://example.com/a.pdf", filename="a.pdf")
            yield DataContent({"a": [1, None]})
        case "fail":
            yield "Well, "
            raise RuntimeError("a secret of the handler")
        case "reject":
            raise Rejected("I do not do this.")
        case "approve" | "Tidy":
            yield "Hm. "
            answer = await run.ask("Delete all?", schema=bool)
            yield "Deleted." if answer.approved else "Kept."
            run.usage = TOKENS
        case "name":
            answer = await run.ask("Your name?", schema=str)
            again = await run.ask(f"Really {answer}?", schema=bool)
            yield f"Hello {answer}, {again.value}."
        case "twins":
            async with trio.open_nursery() as nursery:
                for which in ("left", "right"):
                    nursery.start_soon(ask_for, run, which)
        case "what":
            # What the agent was given, as JSON.
            yield json.dumps(
                {
                    "msgs": [[each.role, each.type, [shown(part) for part in each.content]] for each in msgs],
                    "user": run.user_id,
                    "session": run.session_id,
                    "request": {
                        name: getattr(request, name)
                        for name in ("model", "temperature", "top_p", "max_tokens", "tools", "stop", "seed")
                    },
                    "extra": request.extra,
                }
            )
        case "history":
            history = await app.state.session_service.history(run.user_id, run.session_id)
            yield " | ".join(f"{each.role}: {each.text}" for each in history)
        case "unicode":
            yield 'é "quoted"\n\u2028 \U0001f600'
        case "empty":
            return
        case _:
            async for word in words():
                yield word
            run.usage = TOKENS


async def ask_for(run: Run, which: str) -> None:
    answer = await run.ask(f"{which}?")
    await run.emit(f"{which} {answer}. ")


def shown(part: Any) -> Any:
    return {"type": part.type, **{name: getattr(part, name) for name in part.__slots__ if name in FIELDS}}


FIELDS = ("text", "data", "image_url", "file_url", "file_id", "filename", "file_data", "format", "refusal")

if __name__ == "__main__":
    app.run(port=0)
