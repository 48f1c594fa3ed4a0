"""The agent of the tests of the chat page: what the last message names, it does."""

from __future__ import annotations

import base64
import json
import os
import random
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from trio_agentapp import AgentApp, DataContent, ImageContent, Message, Principal, Run

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


def picture(side: int) -> str:
    """A PNG of random grey pixels, `side` by `side` (a bit each), as a data URL."""
    rows = b"".join(b"\0" + random.Random(row).randbytes((side + 7) // 8) for row in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + data).decode()


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
        case "history":
            for number in range(500):
                yield Message(content=f"**Message** {number}")
        case "hostile":
            for text in json.loads(HOSTILE.read_text()):
                yield Message(content=text)
        case "long":
            for piece in range(300):
                yield f"## Part {piece}\n\n" + ("Some *words* and `code`, " * 40) + "\n\n"
        case "one line":
            for _ in range(300):
                yield "word *a **b `c [d](e " * 144
        case "code":
            yield "```python\n"
            for number in range(10_000):
                yield f"x = {number}  # a line of code\n"
        case "calls":
            for number in range(200):
                call = Message.tool_call(f"tool_{number}", {"number": number, "text": "x" * 1000})
                yield call
                yield Message.tool_output(call.content[0].data["call_id"], {"n": number})  # type: ignore[union-attr]
            yield "all called"
        case "long call":
            yield Message(type="function_call"), False
            for piece in ('{"text": "', *["word " * 20] * 1000, '"}'):
                yield DataContent({"call_id": "c1", "name": "write", "arguments": piece}, delta=True)
        case "picture":
            yield ImageContent(image_url=picture(3000))
            yield "a picture"
        case link if link.startswith(("http:", "/")):
            yield ImageContent(link)
            yield "a picture from elsewhere"
        case "how many":
            yield f"{len(msgs)} messages"
        case "fail":
            raise RuntimeError("boom")
        case other:
            yield f"You said {other} with {len(msgs[-1].content)} parts"


if __name__ == "__main__":
    app.run()
