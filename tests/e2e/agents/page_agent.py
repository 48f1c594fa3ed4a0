"""The agent of the tests of the chat page: what the last message names, it does."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from trio_agentapp import AgentApp, Message, Principal, Run

OPTIONS: dict[str, Any] = json.loads(os.environ.get("AGENT_OPTIONS", "{}"))
HOSTILE = Path(os.environ["FOLDER"]) / "hostile.json"


STARS = """# Stars

- **seven** of them
- and a `moon`

| a | b |
|---|---|
| 1 | 2 |

```python
x = 1
```"""


def by_token(request: Any) -> Principal | None:
    user = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return Principal(user) if user == "ann" else None


if OPTIONS.pop("guarded", False):
    OPTIONS["authenticate"] = by_token

app = AgentApp(app_name="Friday <b>", app_description="Knows & tells", web_ui=True, **OPTIONS)


@app.query()
async def chat(msgs: list[Message], run: Run) -> AsyncIterator[Any]:
    match msgs[-1].text:
        case "count":
            for number in range(40):
                yield f"{number} "
                await trio.sleep(0.05)
        case "tool":
            yield Message.reasoning("Let me look.")
            call = Message.tool_call("look_at_the_sky", {"direction": "up"})
            yield call
            await trio.sleep(0.2)
            yield Message.tool_output(call.content[0].data["call_id"], {"stars": 7})  # type: ignore[union-attr]
            yield STARS
        case "ask":
            answer = await run.ask("Delete all files?", schema=bool)
            yield "deleted" if answer.approved else "kept"
        case "hostile":
            for text in json.loads(HOSTILE.read_text()):
                yield Message(content=text)
        case "fail":
            raise RuntimeError("boom")
        case other:
            yield f"You said {other} with {len(msgs[-1].content)} parts"


if __name__ == "__main__":
    app.run()
