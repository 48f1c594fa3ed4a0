"""The TypeScript declarations of events are those of the classes, and TypeScript accepts real events with them."""

from __future__ import annotations

import runpy
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.node_packages import node_package
from trio_agentapp import (
    AgentApp,
    AudioContent,
    DataContent,
    FileContent,
    ImageContent,
    Message,
    RefusalContent,
    Run,
    TextContent,
    VideoContent,
)
from trio_agentapp.protocol.codec import encode_event

DOCS = Path(__file__).parents[2] / "docs"
FILE = DOCS / "reference/events.d.ts"
TYPESCRIPT = "7.0.2"

USE = """
export function text(events: Event[]): string {
  let all = "";
  for (const event of events) {
    if (event.object === "content" && event.type === "text" && event.delta) all += event.text.trim();
    if (event.object === "message" && event.content) all += event.content.map((part) => part.type).join();
    if (event.object === "response" && event.error) all += event.error.code;
  }
  return all;
}
export const request: AgentRequest = {
  input: [{role: "user", content: [{type: "image", image_url: "https://example.com/a.png"}], mine: 1}],
  on_disconnect: {cancel_after: 30},
  my_field: true,
};
"""


def test_the_declarations_are_current() -> None:
    program = runpy.run_path(str(DOCS / "events_d_ts.py"))
    assert FILE.read_text() == program["declarations"](), "run .venv/bin/python docs/events_d_ts.py"


async def real_events() -> list[str]:
    """One run with every kind of content, one that fails."""
    app = AgentApp()

    @app.query()
    async def chat(msgs: list[Message], run: Run) -> AsyncIterator[Any]:
        run.usage = {"input_tokens": 3}
        yield Message.reasoning("Hm.")
        call = Message.tool_call("look", {"at": "it"})
        yield call
        yield Message.tool_output(call.content[0].data["call_id"], {"seen": 1})  # type: ignore[union-attr]
        yield "some "
        yield "text"
        content = [
            TextContent("text"),
            DataContent([1, None]),
            ImageContent(image_url="https://example.com/a.png"),
            AudioContent(data="AAAA", format="wav"),
            VideoContent(video_url="https://example.com/a.mp4"),
            FileContent(filename="a", file_data="AAAA"),
            RefusalContent("no"),
        ]
        yield Message(content=content, metadata={"a": 1})
        if msgs[-1].text == "fail":
            raise RuntimeError("failed")

    found: list[str] = []
    async with app.runtime():
        for text in ("Hello", "fail"):
            async with app.stream_query({"input": text}) as events:
                found += [encode_event(event).decode() async for event in events]
    return found


def check(folder: Path, events: str) -> subprocess.CompletedProcess[str]:
    tsc = node_package("typescript", TYPESCRIPT).parent / ".bin/tsc"
    source = (
        f'import type {{AgentRequest, Event}} from "./events";\nexport const events: Event[] = [{events}];\n{USE}'
    )
    (folder / "events.d.ts").write_text(FILE.read_text())
    (folder / "sample.ts").write_text(source)
    command = [tsc, "--noEmit", "--strict", "--module", "esnext", "--target", "esnext", "events.d.ts", "sample.ts"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


async def test_typescript_accepts_real_events(tmp_path: Path) -> None:
    events = await real_events()
    assert len(events) > 40
    done = check(tmp_path, ",\n".join(events))
    assert (done.returncode, done.stdout) == (0, "")
    for right, wrong in (
        ('"status":"completed"', '"status":"complete"'),
        ('"object":"message"', '"object":"massage"'),
        ('"index":0', '"index":"0"'),
        ('"msg_id"', '"message_id"'),
    ):
        text = ",\n".join(events)
        assert right in text
        done = check(tmp_path, text.replace(right, wrong, 1))
        assert done.returncode != 0
        assert "error TS" in done.stdout
