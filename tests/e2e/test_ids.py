"""Ids of every kind come back from headers, paths and the client as what they are, or are refused at the start."""

from __future__ import annotations

import json
from urllib.parse import quote, unquote

import pytest
import trio

from trio_agentapp import AgentClient
from trio_agentapp.errors import AgentAppError

from .harness import Server, fresh, say
from .http2 import http2

IDS = [
    "x/history",
    "/history",
    "history",
    "a/b//c",
    "/a",
    "//",
    "a/",
    "50%41",
    "100%",
    "%2F",
    " a",
    "a b ",
    "a?b=1#c",
    "a+b",
    "a;b,c",
    'a"b\\c',
    "...",
    "a/../b",
    "é",
    "😀",
    "x" * 256,
]


@pytest.mark.parametrize("id", IDS)
async def test_an_id_comes_back(server: Server, id: str) -> None:
    user = fresh()
    async with server.chat("echo", session_id=id, user_id=user) as chat:
        head = await chat.head()
        assert unquote(head.header("x-session-id") or "") == id
        assert (await chat.finish())["session_id"] == id
    path = f"/sessions/{quote(id, safe='')}"
    found = await server.get(f"{path}?user_id={user}")
    assert (found["session_id"], found["state"]) == (id, "FINISHED")
    history = await server.get(f"{path}/history?user_id={user}")
    assert history["session_id"] == id
    assert len(history["messages"]) == 2
    async with AgentClient(f"http://127.0.0.1:{server.port}") as client:
        assert (await client.session(id, user_id=user))["last_run_id"] == chat.run_id
        async with client.run("Hello", user_id=id, session_id=id) as events:
            await events.wait()
        assert events.session_id == id
        record = await client.status(events.run_id, user_id=id)
        assert (record["user_id"], record["session_id"]) == (id, id)


@pytest.mark.parametrize("id", IDS)
async def test_an_id_comes_back_over_http2(server: Server, id: str) -> None:
    user = fresh()
    async with http2(server) as client:
        body = {"input": say(), "session_id": id, "user_id": user, "stream": False}
        number = await client.request("POST", "/process", body)
        while number not in client.ended:
            await client.read()
        assert unquote(client.headers[number]["x-session-id"]) == id
        number = await client.request("GET", f"/sessions/{quote(id, safe='')}?user_id={user}")
        while number not in client.ended:
            await client.read()
        assert json.loads(client.data[number])["session_id"] == id


@pytest.mark.parametrize("field", ["session_id", "user_id"])
@pytest.mark.parametrize("id", ["", ".", "..", "a\nb", "a\u0000", "x" * 257])
async def test_an_id_that_cannot_come_back_is_refused_by_name(server: Server, field: str, id: str) -> None:
    answer = await server.call("POST", "/process", {"input": say(), field: id})
    assert answer.status == 422
    [fault] = answer.json()["errors"]
    assert fault["loc"] == f"$.{field}"
    assert "must" in fault["msg"]
    async with AgentClient(f"http://127.0.0.1:{server.port}") as client:
        with pytest.raises(AgentAppError, match="must"):
            async with client.run({"input": "Hello", field: id}):
                pass


async def test_links_are_behind_the_prefix_of_the_app(start) -> None:
    server = start("friday", "hypercorn", flags=("--root-path", "/api/v1"), ready=False)
    with server.deadline(20, "start"):
        while not server._ready_at("/api/v1/readiness"):
            await trio.sleep(0.02)
    answer = await server.call(
        "POST", "/api/v1/process", {"input": say(), "stream": False, "session_id": "x/history"}
    )
    assert answer.status == 200
    location = answer.header("location") or ""
    assert location == f"/api/v1/runs/{answer.header('x-run-id')}"
    assert (await server.get(location))["state"] == "FINISHED"
    assert (await server.get("/api/v1/sessions/x%2Fhistory"))["session_id"] == "x/history"
    assert (await server.get("/api/v1/openapi.json"))["servers"] == [{"url": "/api/v1"}]
    answer = await server.call("POST", "/api/v1/process", {"input": say(), "background": True})
    assert (answer.header("location") or "").startswith("/api/v1/runs/")


async def test_a_receipt_agrees_with_itself(server: Server) -> None:
    """Also where the client left a moment before the stop."""
    for wait in (True, False):
        session = fresh()
        async with server.chat("endless", session_id=session, cleanup=0.3) as chat:
            await chat.started()
        receipt = await server.stop(wait=wait, session_id=session)
        if receipt["state"] == "STOPPED":
            assert (receipt["message"], receipt["stopped"]) == ("The run was stopped.", True)
        else:
            assert (receipt["message"], receipt["stopped"]) == ("The run is being stopped.", False)
        assert not wait or receipt["stopped"]
