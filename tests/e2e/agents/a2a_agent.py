"""An app that other agents call: what its handler does is named by the text of the message."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from trio_agentapp import AgentApp, AgentRequest, Message, Principal, Rejected, Run, Timings
from trio_agentapp.protocol import DataContent, FileContent, ImageContent, TextContent
from trio_agentapp.wires import AgentCardWithRuntimeConfig, a2a_reply

MARKS = Path(os.environ["FOLDER"]) / "marks"
TOKENS = {"Bearer ann": "ann", "Bearer bob": "bob"}


def mark(text: str) -> None:
    with open(MARKS, "a") as file:
        file.write(text + "\n")


def authenticate(request: Any) -> Principal | None:
    user = TOKENS.get(request.headers.get("Authorization", ""))
    return None if user is None else Principal(user)


secured = bool(os.environ.get("SECURED"))
card = {
    "name": "Ada",
    "description": "Does what it is told.",
    "skills": [{"id": "do", "name": "Do", "description": "Does things.", "tags": ["do"]}],
    "capabilities": {
        "extensions": [{"uri": "https://example.com/ext/one"}],
    },
}
if os.environ.get("MODES"):
    card["default_input_modes"] = os.environ["MODES"].split(",")
if os.environ.get("REQUIRED"):
    card["capabilities"] = {"extensions": [{"uri": "https://example.com/ext/must", "required": True}]}
if secured:
    card["security_schemes"] = {"token": {"type": "http", "scheme": "Bearer"}}
    card["security"] = [{"token": []}]

app = AgentApp(
    app_name="Ada",
    a2a_config=AgentCardWithRuntimeConfig(
        agent_card=card,
        protocol_versions=os.environ.get("VERSIONS", "1.0,0.3").split(","),
        task_timeout=float(os.environ["TASK_TIMEOUT"]) if "TASK_TIMEOUT" in os.environ else None,
        task_event_timeout=float(os.environ["EVENT_TIMEOUT"]) if "EVENT_TIMEOUT" in os.environ else None,
        extended_card={"description": "For friends."} if secured else None,
        push_hosts=os.environ.get("PUSH_HOSTS", "").split(",") if "PUSH_HOSTS" in os.environ else (),
    ),
    authenticate=authenticate if secured else None,
    timings=Timings(**json.loads(os.environ.get("TIMINGS", "{}"))),
    **json.loads(os.environ.get("AGENT_OPTIONS", "{}")),
)


@app.query()
async def chat(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    do, _, rest = msgs[-1].text.partition(" ")
    mark(f"begin {do}")
    try:
        match do:
            case "say":
                for word in rest.split():
                    yield word + " "
            case "wait":
                yield "waiting "
                await trio.sleep_forever()
            case "silent":
                await trio.sleep_forever()
            case "steps":
                for number in range(int(rest)):
                    yield f"{number} "
                    await trio.sleep(0.01)
            case "large":
                yield "x" * int(rest)
            case "gate":
                yield "before "
                while not (MARKS.parent / rest).exists():
                    await trio.sleep(0.01)
                yield "after"
            case "long":
                for number in range(12000):
                    yield f"{number} "
                while not (MARKS.parent / rest).exists():
                    await trio.sleep(0.01)
                yield "end"
            case "reply":
                yield a2a_reply(f"bare {rest}")
            case "broken_reply":
                yield a2a_reply("first")
                yield "second"
            case "ask":
                yield "hm "
                answer = await run.ask("Which colour?")
                yield f"so {answer}"
            case "approve":
                answer = await run.ask("Really?", schema=bool)
                yield f"approved: {answer.approved}"
            case "state":
                run.state["step"] = 1
                yield f"step {run.state['step']}"
            case "login":
                await run.ask("Log in at https://example.com/login", auth=True)
                yield "thanks"
            case "receive":
                message = await run.receive()
                yield f"got {message.text}"
            case "reject":
                raise Rejected("I do not do that.")
            case "fail":
                yield "almost "
                raise RuntimeError("secret detail")
            case "think":
                yield Message.reasoning("I ponder.")
                call = Message.tool_call("search", {"q": "x"})
                yield call
                yield Message.tool_output(call.content[0].data["call_id"], "found")
                yield "done"
            case "files":
                yield Message(
                    content=[
                        TextContent("a text"),
                        DataContent({"a": [1, 2]}),
                        ImageContent("data:image/png;base64,aGk="),
                        FileContent(file_url="https://example.com/a.pdf", filename="a.pdf"),
                        FileContent(file_data="aGk=", filename="b.txt"),
                    ],
                    metadata={"name": "Bundle", "description": "All kinds.", "origin": "test"},
                )
            case "parts":
                yield Message(content=[DataContent([type(part).__name__ for part in msgs[-1].content])])
            case "extra":
                yield DataContent(request.extra["a2a"])
            case "whoami":
                yield f"{request.user_id}/{request.session_id}"
            case "history":
                yield str(len(msgs))
    except trio.Cancelled:
        async with run.cleanup():
            await trio.sleep(0.01)
            mark(f"cancelled {do}")
        raise
    finally:
        mark(f"end {do}")


@app.endpoint("/watch", methods=["GET"])
async def watch(do: str) -> AsyncIterator[str]:
    mark(f"begin {do}")
    try:
        yield "waiting "
        if do == "fail":
            raise RuntimeError("secret detail")
        if do == "wait":
            await trio.sleep_forever()
    except GeneratorExit:
        await trio.sleep(0.01)
        mark(f"cancelled {do}")
        raise
    finally:
        mark(f"end {do}")


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "0")))
