"""Tests of a chat, byte by byte, and of which requests share a session."""

from __future__ import annotations

import json
import re
import time

import httpx
import pytest
import trio

from .harness import Chat, Server, fresh, output_text, say

GOLDEN = (
    ": stream\nretry: 3000\n\n"
    'id: 0\ndata: {"sequence_number":0,"object":"response","status":"created","error":null,"id":"RESPONSE",'
    '"created_at":TIME,"completed_at":null,"output":null,"usage":null,"session_id":"SESSION"}\n\n'
    'id: 1\ndata: {"sequence_number":1,"object":"response","status":"in_progress","error":null,"id":"RESPONSE",'
    '"created_at":TIME,"completed_at":null,"output":null,"usage":null,"session_id":"SESSION"}\n\n'
    'id: 2\ndata: {"sequence_number":2,"object":"message","status":"in_progress","error":null,"id":"MESSAGE",'
    '"type":"message","role":"assistant","content":null,"code":null,"message":null,"usage":null,'
    '"metadata":null}\n\n'
    'id: 3\ndata: {"sequence_number":3,"object":"content","status":"in_progress","error":null,"type":"text",'
    '"index":0,"delta":true,"msg_id":"MESSAGE","text":"Hello"}\n\n'
    'id: 4\ndata: {"sequence_number":4,"object":"content","status":"in_progress","error":null,"type":"text",'
    '"index":0,"delta":true,"msg_id":"MESSAGE","text":" World!"}\n\n'
    'id: 5\ndata: {"sequence_number":5,"object":"content","status":"completed","error":null,"type":"text",'
    '"index":0,"delta":false,"msg_id":"MESSAGE","text":"Hello World!"}\n\n'
    'id: 6\ndata: {"sequence_number":6,"object":"message","status":"completed","error":null,"id":"MESSAGE",'
    '"type":"message","role":"assistant","content":[{"sequence_number":5,"object":"content","status":"completed",'
    '"error":null,"type":"text","index":0,"delta":false,"msg_id":"MESSAGE","text":"Hello World!"}],"code":null,'
    '"message":null,"usage":null,"metadata":null}\n\n'
    'id: 7\ndata: {"sequence_number":7,"object":"response","status":"completed","error":null,"id":"RESPONSE",'
    '"created_at":TIME,"completed_at":TIME,"output":[{"sequence_number":6,"object":"message",'
    '"status":"completed","error":null,"id":"MESSAGE","type":"message","role":"assistant","content":['
    '{"sequence_number":5,"object":"content","status":"completed","error":null,"type":"text","index":0,'
    '"delta":false,"msg_id":"MESSAGE","text":"Hello World!"}],"code":null,"message":null,"usage":null,'
    '"metadata":null}],"usage":null,"session_id":"SESSION"}\n\n'
)


def normalised(text: str, run_id: str, session_id: str) -> str:
    """With the names of the golden chat for the ids; every message must have the same one."""
    (message_id,) = set(re.findall(r'"(msg_[0-9a-f]{32})"', text))
    now = time.time()
    for stamp in re.findall(r'"c(?:reat|omplet)ed_at":(\d+)', text):
        assert abs(int(stamp) - now) < 60
    text = re.sub(r'"(created_at|completed_at)":\d+', r'"\1":TIME', text)
    text = text.replace(message_id, "MESSAGE").replace(f'"response_{run_id}"', '"RESPONSE"')
    return text.replace(f'"session_id":"{session_id}"', '"session_id":"SESSION"')


async def test_the_golden_chat_byte_for_byte(server: Server) -> None:
    session = fresh()
    async with server.chat("hello", session_id=session) as chat:
        head = await chat.head()
        assert (await chat.finish())["status"] == "completed"
        assert normalised(chat.raw.decode(), chat.run_id, session) == GOLDEN
        assert re.fullmatch(r"[0-9a-f]{32}", chat.run_id)
    assert head.header("content-type") == "text/event-stream; charset=utf-8"
    assert head.header("cache-control") == "no-cache, no-transform"
    assert head.header("x-accel-buffering") == "no"
    assert head.header("x-session-id") == session
    assert head.header("location") == f"/runs/{chat.run_id}"
    names = [name for name, _ in head.headers]
    assert sorted(set(names)) == sorted(names)
    # No `connection`, no `content-encoding`, nothing else: what Hypercorn adds is named here.
    ours = {"content-type", "cache-control", "x-accel-buffering", "x-run-id", "x-session-id", "location"}
    assert set(names) - {"date", "server", "transfer-encoding"} == ours


async def test_a_stock_client_reads_it(server: Server) -> None:
    """httpx, with all its own headers, compression among them."""
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{server.port}/process"
        async with client.stream("POST", url, json={"input": say(), "session_id": fresh()}) as response:
            lines = [line async for line in response.aiter_lines()]
    assert response.status_code == 200
    assert "connection" not in response.headers
    assert "content-encoding" not in response.headers
    assert lines[:2] == [": stream", "retry: 3000"]
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert [line for line in lines if line.startswith("id: ")] == [f"id: {number}" for number in range(8)]
    assert data[-1]["status"] == "completed"


async def test_deltas_come_one_by_one(server: Server) -> None:
    """Nothing on the way collects them: the first is here while the agent still waits."""
    session = fresh()
    async with server.chat("endless", session_id=session, period=60) as chat:
        await chat.started(1)
        await server.stop(session_id=session)
        await chat.finish()
    assert chat.said == "t0 "


async def test_not_streamed_it_is_the_terminal_response(server: Server) -> None:
    session = fresh()
    answer = await server.call("POST", "/process", {"input": say(), "session_id": session, "stream": False})
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    run_id = answer.header("x-run-id")
    assert answer.header("x-session-id") == session
    assert answer.header("location") == f"/runs/{run_id}"
    assert answer.header("connection") is None
    golden = GOLDEN.rsplit("data: ", 1)[1].strip()
    assert normalised(answer.body.decode(), run_id or "", session) == golden


async def test_a_plain_string_as_content(server: Server) -> None:
    body = {"input": [{"role": "user", "content": "plain words"}], "do": "echo", "stream": False}
    answer = await server.call("POST", "/process", body)
    assert json.loads(output_text(answer.json()))["said"] == "plain words"


async def test_requests_without_ids_never_meet(server: Server) -> None:
    """Both live at once, each with its own session, user and state."""
    seen = set()
    async with server.chat("endless") as one, server.chat("endless") as other:
        for chat in (one, other):
            await chat.started()
            head = await chat.head()
            seen |= {head.header("x-session-id"), chat.run_id}
    assert len(seen) == 4
    told = []
    for _ in range(2):
        answer = await server.call("POST", "/process", {"input": say(), "do": "echo", "stream": False})
        told.append(json.loads(output_text(answer.json())))
    assert len({each[name] for each in told for name in ("user", "run")}) == 4
    assert all(each["user"] == each["session"] for each in told)
    for _ in range(2):
        answer = await server.call("POST", "/process", {"input": say(), "do": "remember", "stream": False})
        assert output_text(answer.json()) == "1"


async def test_an_id_of_the_clients_own(server: Server) -> None:
    run_id = fresh("My_Run-")
    async with server.chat("endless", id=run_id) as chat:
        await chat.started()
        assert chat.run_id == run_id
        assert chat.events[0]["id"] == f"response_{run_id}"
        assert (await chat.head()).header("location") == f"/runs/{run_id}"
        assert (await server.get(f"/runs/{run_id}"))["state"] == "RUNNING"


@pytest.mark.parametrize("stage", ["while it runs", "after its end"])
async def test_an_id_taken_by_another_session(server: Server, stage: str) -> None:
    run_id, theirs, mine = fresh("run"), fresh(), fresh()
    async with server.chat("endless", id=run_id, session_id=theirs) as chat:
        await chat.started()
        if stage == "after its end":
            await server.stop(run_id=run_id, wait=True)
        answer = await server.call("POST", "/process", {"input": say(), "id": run_id, "session_id": mine})
        assert answer.status == 422
        problem = answer.json()
        assert problem["code"] == "validation_error"
        assert [fault["loc"] for fault in problem["errors"]] == ["$.id"]
        assert theirs not in answer.body.decode()
        if stage == "while it runs":
            assert (await server.get(f"/runs/{run_id}"))["state"] == "RUNNING"
    assert f"begin {mine}" not in server.marks


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a:b", "c"), ("a", "b:c")),
        (("ab", "c"), ("a", "bc")),
        (("a\u00e9", "x"), ("a", "\u00e9x")),
        (("u", "s"), ("U", "s")),
        (("u ", "s"), ("u", " s")),
    ],
)
async def test_pairs_that_join_to_one_string_never_meet(
    server: Server, one: tuple[str, str], other: tuple[str, str]
) -> None:
    own = fresh("x")
    pairs = [{"user_id": own + user, "session_id": session + own} for user, session in (one, other)]
    for turn in ("1", "2"):
        for pair in pairs:
            answer = await server.call(
                "POST", "/process", {"input": say(), "do": "remember", "stream": False, **pair}
            )
            assert output_text(answer.json()) == turn
    async with server.chat("endless", **pairs[0]) as first, server.chat("endless", **pairs[1]) as second:
        await first.started()
        await second.started()
        assert (await server.stop(**pairs[0], wait=True))["stopped"]
        assert (await first.finish())["status"] == "canceled"
        await second.started(len(second.deltas) + 3)
        assert (await server.get(f"/runs/{second.run_id}"))["state"] == "RUNNING"


async def test_a_session_id_beyond_ascii_in_a_header(server: Server) -> None:
    async with server.chat(session_id=fresh("\u00e9\u4f60")) as chat:
        session = (await chat.head()).header("x-session-id")
        assert session is not None
        assert session.startswith("%C3%A9%E4%BD%A0")
        await chat.finish()


async def test_one_connection_serves_chat_after_chat(server: Server) -> None:
    async with server.connect() as client:
        for turn in range(3):
            if turn:
                client.next_request()
            await client.send("POST", "/process", {"input": say()})
            await Chat(client).finish()


async def test_text_of_every_kind_arrives_whole(server: Server) -> None:
    text = "\u00e9\u4f60\U0001f600\u2028\r\n\x00\x1b data: x\n\nid: 9"
    async with server.chat(do="echo", input=say(text)) as chat:
        end = await chat.finish()
    assert json.loads(output_text(end))["said"] == text


async def test_done_only_when_asked_for(server: Server, start) -> None:
    async with server.chat() as chat:
        await chat.finish()
        assert not chat.parser.done
    other = start(way=server.way, sse_done=True)
    async with other.chat() as chat:
        await chat.finish()
        assert chat.parser.done
        assert chat.raw.endswith(b"}\n\ndata: [DONE]\n\n")
    other.close()


async def test_many_chats_side_by_side(server: Server) -> None:
    async def one(number: int) -> None:
        async with server.chat("work", seconds=0.3, session_id=fresh()) as chat:
            assert (await chat.finish(30))["status"] == "completed"
            assert chat.said == "".join(f"{step} " for step in range(15))

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(one, number)
    assert (await server.get("/test/live"))["live"] == 0
