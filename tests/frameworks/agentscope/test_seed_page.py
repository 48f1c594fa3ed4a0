"""The examples of the replaced product's page, as they are printed there, in a server of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import trio

pytest.importorskip("agentscope", reason="it has an environment of its own: make test-frameworks")
pytest.importorskip("fakeredis", reason="it is installed by make test-frameworks")

EXAMPLES = Path(__file__).parents[3] / "examples" / "seed"
IDS = {"session_id": "ss-123", "user_id": "uu-123"}


@asynccontextmanager
async def serving(name: str, log: Path) -> AsyncIterator[httpx.AsyncClient]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "trio_agentapp", "run", str(EXAMPLES / name), "--port", str(port)]
    with log.open("wb") as output:
        start = partial(
            trio.run_process,
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        async with (
            trio.open_nursery() as nursery,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client,
        ):
            process = await nursery.start(start)
            await ready(client, process)
            yield client
            process.terminate()


async def ready(client: httpx.AsyncClient, process: trio.Process) -> None:
    with trio.fail_after(60):
        while process.poll() is None:
            try:
                if (await client.get("/readiness")).is_success:
                    return
            except httpx.TransportError:
                pass
            await trio.sleep(0.1)
    raise AssertionError("the example has ended")


async def ask(client: httpx.AsyncClient, text: str, stop_at: str = "") -> dict[str, Any]:
    """The last event of the answer."""
    body = {"input": [{"role": "user", "content": [{"type": "text", "text": text}]}], **IDS}
    event: dict[str, Any] = {}
    with trio.fail_after(60):
        async with client.stream("POST", "/process", json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    event = orjson.loads(line[5:])
                if stop_at and stop_at in str(event.get("text")):
                    stop_at = ""
                    answer = await client.post("/stop", json={"input": [], **IDS})
                    assert answer.json() == {"status": "success", "message": "Interrupt signal broadcasted."}
    return event


def text_of(event: dict[str, Any]) -> str:
    text: str = event["output"][-1]["content"][0]["text"]
    return text


@pytest.mark.parametrize("name", ["app.py", "custom_query.py"])
async def test_an_agent_with_a_tool_and_a_redis_session(name: str, tmp_path: Path) -> None:
    async with serving(name, tmp_path / "log") as client:
        end = await ask(client, "Compute it.")
        assert [message["type"] for message in end["output"]] == ["plugin_call", "plugin_call_output", "message"]
        assert text_of(end).strip() == "It is 42."
        assert text_of(await ask(client, "And now?")).startswith("You have asked 2 times.")


async def test_a_stopped_story_is_remembered_as_far_as_it_was_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with serving("app.py", log) as client:
        end = await ask(client, "Please write a very long and detailed story.", stop_at="dawn")
        assert end["status"] == "canceled"
        answer = text_of(await ask(client, "Where were we?"))
    assert answer.startswith("You have asked 2 times. I said: ")
    assert "Friday left the station at dawn" in answer
    printed = log.read_text()
    assert "Task ss-123 was manually interrupted." in printed
    assert "AgentApp is shutting down..." in printed
