"""A stop, a conflict, a drain and a time-out act the same through every entry: all start runs of one registry."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from .a2a_client import headers_of, saying
from .conftest import Start
from .harness import Server, fresh
from .sockets import connect

Entry = Callable[[Server, AsyncExitStack, str, str], Any]
"""Sends a text in a session, and returns the run id, or the code of the refusal."""


async def process(server: Server, stack: AsyncExitStack, text: str, session: str, **fields: Any) -> str:
    client = await stack.enter_async_context(server.connect())
    body = {"input": text, "session_id": session, "on_disconnect": "continue", **fields}
    await client.send("POST", "/process", body)
    head = await client.head()
    if head.status == 200:
        run_id = head.header("x-run-id")
        assert run_id
        return run_id
    return await _code(client, head)


async def socket(server: Server, stack: AsyncExitStack, text: str, session: str, **fields: Any) -> str:
    ws = await stack.enter_async_context(connect(server))
    request = {"input": text, "session_id": session, "on_disconnect": "continue", **fields}
    await ws.send("start", id="1", request=request)
    with server.deadline(15, "answer of the socket"):
        while True:
            message = await ws.receive()
            if message["type"] == "error":
                return str(message["error"]["code"])
            if message["type"] == "started":
                return str(message["run_id"])


async def a2a(server: Server, stack: AsyncExitStack, text: str, session: str, **fields: Any) -> str:
    client = await stack.enter_async_context(server.connect())
    params = {"message": saying(text, contextId=session), "configuration": {"returnImmediately": True}}
    body = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": params}
    await client.send("POST", "/a2a", body, headers=headers_of("1.0"))
    answer = (await client.answer()).json()
    if "error" in answer:
        return str(answer["error"]["data"][0]["reason"].lower())
    task = answer["result"]["task"]
    if task["status"]["state"] == "TASK_STATE_REJECTED":
        return str(task["status"]["message"]["metadata"]["code"])
    return str(task["id"])


async def background(server: Server, stack: AsyncExitStack, text: str, session: str, **fields: Any) -> str:
    client = await stack.enter_async_context(server.connect())
    body = {"input": text, "session_id": session, "multitask_strategy": "reject", **fields}
    await client.send("POST", "/process/task", body)
    head = await client.head()
    if head.status >= 400:
        return await _code(client, head)
    while piece := await client.data():
        head.body += piece
    return str(head.json()["task_id"])


async def _code(client: Any, head: Any) -> str:
    while piece := await client.data():
        head.body += piece
    return str(head.json()["code"])


ENTRIES = {"process": process, "socket": socket, "a2a": a2a, "task": background}
OPTIONS = {"AGENTAPP_ENABLE_STREAM_TASK": "1"}


async def running(server: Server, run_id: str) -> None:
    """Until the handler has begun."""
    with server.deadline(15, "running handler"):
        while (await server.get(f"/runs/{run_id}"))["phase"] != "running" or "begin wait" not in server.marks:
            pass


async def ended(server: Server, run_id: str) -> tuple[str, str]:
    with server.deadline(15, "end of the run"):
        while (run := await server.get(f"/runs/{run_id}"))["phase"] != "ended":
            pass
    return run["state"], run["reason"]


@pytest.mark.parametrize("entry", ENTRIES)
async def test_a_stop_and_a_conflict(start: Start, entry: str) -> None:
    server = start("a2a_agent", env=OPTIONS)
    async with AsyncExitStack() as stack:
        session = fresh("session")
        run_id = await ENTRIES[entry](server, stack, "wait", session)
        await running(server, run_id)
        for other in ENTRIES.values():
            assert await other(server, stack, "say no", session) == "session_busy"
        assert "begin say" not in server.marks
        receipt = await server.stop(wait=True, session_id=session)
        assert (receipt["run_id"], receipt["stopped"], receipt["cleanup"]) == (run_id, True, "done")
        assert server.marks[-2:] == ["cancelled wait", "end wait"]
        assert await ended(server, run_id) == ("STOPPED", "stopped")
        for other in ENTRIES.values():
            assert await ended(server, await other(server, stack, "say yes", session)) == ("FINISHED", "returned")
    server.close()


@pytest.mark.parametrize("entry", ENTRIES)
async def test_a_time_out(start: Start, entry: str) -> None:
    server = start("a2a_agent", env={**OPTIONS, "TASK_TIMEOUT": "0.3"})
    async with AsyncExitStack() as stack:
        run_id = await ENTRIES[entry](server, stack, "wait", fresh("session"), timeout_s=0.3)
        assert await ended(server, run_id) == ("ERROR", "deadline_exceeded")
        assert server.marks[-2:] == ["cancelled wait", "end wait"]
    server.close()


@pytest.mark.parametrize("entry", ENTRIES)
async def test_a_drain(start: Start, entry: str) -> None:
    server = start("a2a_agent", env={**OPTIONS, "AGENTAPP_DRAIN_TIMEOUT": "1"})
    async with AsyncExitStack() as stack:
        run_id = await ENTRIES[entry](server, stack, "wait", fresh("session"))
        await running(server, run_id)
        # The listener is closed at once, so the second request has its connection already.
        client = await stack.enter_async_context(server.connect())
        await client.send("GET", "/health")
        await client.answer()
        client.next_request()
        server.send_signal()
        await server.wait_until(lambda: "Draining" in server.log, "log line")
        body = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": saying("say no")}}
        await client.send("POST", "/a2a", body, headers=headers_of("1.0"))
        assert (await client.answer()).status == 503
        assert await server.wait_exit() == 0
    assert "begin say" not in server.marks
    assert server.marks[-2:] == ["cancelled wait", "end wait"]
    assert f"run {run_id} has ended: STOPPED (shutdown)" in server.log
