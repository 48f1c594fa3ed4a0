"""An agent for the tests of requirements, written from the documentation alone: `docs/how-to/speak-a2a.md`."""

from __future__ import annotations

import os

import trio

from trio_agentapp import AgentApp, Message, Rejected, Run
from trio_agentapp.protocol import DataContent, FileContent, TextContent
from trio_agentapp.wires import AgentCardWithRuntimeConfig, a2a_reply

card = {
    "name": "Told",
    "description": "Does what it is told.",
    "version": "1.0.0",
    "skills": [{"id": "do", "name": "Do", "description": "Does what it is told.", "tags": ["do"]}],
    "default_input_modes": ["text/plain", "application/json"],
    "capabilities": {"streaming": "LESS" not in os.environ, "push_notifications": "LESS" not in os.environ},
}
if "REQUIRED" in os.environ:
    card["capabilities"] = {"extensions": [{"uri": "https://example.com/needed", "required": True}]}

app = AgentApp(
    app_name="Told",
    a2a_config=AgentCardWithRuntimeConfig(agent_card=card, push_hosts=["127.0.0.1"]),
)


@app.query()
async def chat(msgs: list[Message], run: Run):
    match msgs[-1].text:
        case "complete":
            yield "Done."
        case "work":
            yield "Working. "
            await trio.sleep_forever()
        case "delay":
            yield "Working. "
            await trio.sleep(1)
            yield "Done."
        case "text":
            yield Message(content=[TextContent("Generated text")])
        case "file":
            yield Message(content=[FileContent(file_data="aGVsbG8=", filename="output.txt")])
        case "url":
            yield Message(content=[FileContent(file_url="https://example.com/output.txt", filename="output.txt")])
        case "data":
            yield Message(content=[DataContent({"key": "value", "count": 42})])
        case "message":
            yield a2a_reply("A message.")
        case "input":
            answer = await run.ask("What else?")
            yield f"You said {answer.value}."
        case "auth":
            await run.ask("Log in at https://example.com/login.", auth=True)
        case "reject":
            raise Rejected("rejected")
        case "count":
            for number in range(20):
                yield f"{number} "
                await trio.sleep(0.02)


if __name__ == "__main__":
    app.run()
