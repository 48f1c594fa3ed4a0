"""Other ways to talk to the port: HTTP/2 by prior knowledge, HTTP/1.0, pipelining."""

from __future__ import annotations

import json
from typing import Any

import trio

from .harness import TIMEOUT, Server, SSEParser, check_events, fresh, output_text, say
from .http2 import H2Client, http2


def events_of(raw: bytes) -> list[dict[str, Any]]:
    parser = SSEParser()
    events = parser.feed(raw)
    parser.end()
    check_events(events)
    return events


async def test_the_golden_chat_over_http2(server: Server) -> None:
    session = fresh()
    async with http2(server) as client:
        number = await client.request("POST", "/process", {"input": say(), "session_id": session})
        events = events_of(await client.answer(number))
        headers = client.headers[number]
    assert [(event["object"], event["status"]) for event in events] == [
        ("response", "created"),
        ("response", "in_progress"),
        ("message", "in_progress"),
        ("content", "in_progress"),
        ("content", "in_progress"),
        ("content", "completed"),
        ("message", "completed"),
        ("response", "completed"),
    ]
    assert output_text(events[-1]) == "Hello World!"
    assert headers[":status"] == "200"
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-session-id"] == session
    assert headers["location"] == f"/runs/{headers['x-run-id']}"
    assert "connection" not in headers
    assert "transfer-encoding" not in headers


async def test_chats_share_a_connection(server: Server) -> None:
    async with http2(server) as client:
        body = {"input": say(), "do": "work", "seconds": 0.3}
        numbers = [await client.request("POST", "/process", body) for _ in range(10)]
        for number in numbers:
            assert events_of(await client.answer(number))[-1]["status"] == "completed"


async def test_a_reset_stream_stops_its_run_and_no_other(server: Server) -> None:
    session, other = fresh(), fresh()
    async with http2(server) as client:
        endless = {"input": say(), "do": "endless", "cleanup": 0.3}
        number = await client.request("POST", "/process", {**endless, "session_id": session})
        spared = await client.request("POST", "/process", {**endless, "session_id": other})
        await client.read_until(lambda: b"t2" in client.data[number] and b"t2" in client.data[spared], "words")
        client.h2.reset_stream(number)
        await client.flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_reading, client)
            await server.wait_mark(f"end {session}")
            nursery.cancel_scope.cancel()
        assert f"cleaned {session}" in server.marks
        run = await server.get(f"/runs/{client.headers[number]['x-run-id']}")
        assert (run["state"], run["reason"]) == ("STOPPED", "disconnected")
        seen = len(client.data[spared])
        await client.read_until(lambda: len(client.data[spared]) > seen, "words of the other")
        # The same connection serves the same session again.
        again = await client.request("POST", "/process", {"input": say(), "session_id": session})
        assert events_of(await client.answer(again))[-1]["status"] == "completed"
        assert (await server.stop(session_id=other, wait=True))["stopped"] is True
        assert events_of(await client.answer(spared))[-1]["status"] == "canceled"


async def _keep_reading(client: H2Client) -> None:
    while True:
        await client.read()


async def test_a_lost_connection_stops_all_its_runs(server: Server) -> None:
    sessions = [fresh() for _ in range(5)]
    async with http2(server) as client:
        for session in sessions:
            body = {"input": say(), "do": "endless", "session_id": session}
            number = await client.request("POST", "/process", body)
            await client.read_until(lambda number=number: b"t0" in client.data[number], "words")
    for session in sessions:
        await server.wait_mark(f"end {session}")
        assert f"cleaned {session}" in server.marks


async def test_problems_over_http2(server: Server) -> None:
    async with http2(server) as client:
        number = await client.request("POST", "/process", {"input": 1})
        body = json.loads(await client.answer(number))
        assert (client.headers[number][":status"], body["code"]) == ("422", "validation_error")
        number = await client.request("GET", "/nowhere")
        assert json.loads(await client.answer(number))["code"] == "not_found"


async def test_upgrade_to_http2_in_the_clear(server: Server) -> None:
    """h2c by Upgrade: answered, over whichever of the two."""
    async with server.connect() as client:
        upgrade = (
            b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        await client.stream.send_all(upgrade)
        with server.deadline(TIMEOUT):
            seen = await client.stream.receive_some(65536)
        assert seen.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200"))


async def test_http_1_0(server: Server) -> None:
    """No chunks: the end of the connection is the end of the answer."""
    body = json.dumps({"input": say()}).encode()
    async with server.connect() as client:
        head = f"POST /process HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        await client.stream.send_all(head.encode() + body)
        raw = await client.wait_eof()
    _, _, stream = raw.partition(b"\r\n\r\n")
    assert events_of(stream)[-1]["status"] == "completed"


async def test_connection_close_is_honoured(server: Server) -> None:
    async with server.connect() as client:
        await client.send("POST", "/process", {"input": say()}, headers={"Connection": "close"})
        raw = await client.wait_eof(5)
    assert raw.endswith(b"0\r\n\r\n")


async def test_pipelined_requests_are_answered_in_turn(server: Server) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    async with server.connect() as client:
        await client.stream.send_all(request * 3)
        seen = b""
        with server.deadline(TIMEOUT, "three answers"):
            while seen.count(b'"healthy"') < 3:
                piece = await client.stream.receive_some(65536)
                assert piece
                seen += piece
    assert seen.count(b"HTTP/1.1 200") == 3


async def test_expect_100_continue(server: Server) -> None:
    body = json.dumps({"input": say(), "stream": False}).encode()
    async with server.connect() as client:
        head = (
            "POST /process HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        await client.stream.send_all(head.encode())
        with server.deadline(TIMEOUT, "100 Continue"):
            assert (await client.stream.receive_some(1000)).startswith(b"HTTP/1.1 100")
        await client.stream.send_all(body)
        assert b"HTTP/1.1 200" in await client.wait_eof()


async def test_head_and_options(server: Server) -> None:
    answer = await server.call("HEAD", "/health")
    assert (answer.status, answer.body) == (200, b"")
    answer = await server.call("OPTIONS", "/process")
    assert answer.status == 200
    assert "POST" in (answer.header("allow") or "")


async def test_the_front_door(server: Server) -> None:
    """Name, description, and only routes that exist."""
    page = await server.get("/")
    assert page["name"] == "Friday"
    assert page["description"] == "A scripted assistant"
    routes = page["routes"]
    assert {"/", "/health", "/readiness", "/liveness", "/process", "/stop"} <= set(routes)
    for path in ("/health", "/readiness", "/liveness"):
        answer = (await server.call("GET", path)).json()
        assert answer["status"] == "healthy"
        assert isinstance(answer["timestamp"], int | float)
