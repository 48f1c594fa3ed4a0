"""Agents that are broken or hostile harm nothing: the client raises a clear error, and reads within its bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.wires.a2a_client.raw_agent import (
    Request,
    begin_events,
    card,
    piece,
    raw_agent,
    send,
    send_event,
    send_json,
    status,
    task,
)
from trio_agentapp.errors import A2AError, ConfigurationError, ConnectionLost, UnexpectedAnswer
from trio_agentapp.wires import A2AClient

STRANGE = [
    b"",
    b"no JSON",
    b"[]",
    b"null",
    b"{}",
    b'{"jsonrpc":"2.0","id":1}',
    b'{"jsonrpc":"2.0","id":1,"result":null}',
    b'{"jsonrpc":"2.0","id":1,"result":{}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"task":[]}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"task":{"id":"","status":{"state":"TASK_STATE_COMPLETED"}}}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"task":{"id":"a\\u0000b","status":{"state":"TASK_STATE_COMPLETED"}}}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"task":{"id":"t","status":{"state":7}}}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"task":{"id":"t","status":"done"}}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"message":{"parts":"hi"}}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"message":{"parts":[7]}}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"artifactUpdate":{"taskId":"t","artifact":7}}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"kind":"other"}}',
    b"[" * 100_000,
    b'{"jsonrpc":"2.0","id":1,"result":' + b'{"a":' * 2000 + b"1" + b"}" * 2001,
]


async def never(request: Request, stream: trio.SocketStream) -> None:
    raise AssertionError(f"nothing should be asked: {request}")


@pytest.mark.parametrize("streams", [True, False], ids=["stream", "one-answer"])
@pytest.mark.parametrize("body", STRANGE, ids=range(len(STRANGE)))
async def test_answers_that_are_not_a2a(body: bytes, streams: bool) -> None:
    async def answer(request: Request, stream: trio.SocketStream) -> None:
        if streams and body:
            await begin_events(stream)
            await stream.send_all(b"data: " + body + b"\n\n")
        else:
            await send(stream, body, content_type="application/json")

    served = card(capabilities={"streaming": streams})
    async with raw_agent(answer, served) as agent, A2AClient(agent.url) as client:
        with pytest.raises(UnexpectedAnswer):
            await client.send("hi")


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"name":"x","url":7}', b'{"supportedInterfaces":3}']
)
async def test_cards_that_are_none(body: bytes) -> None:
    async def answer(request: Request, stream: trio.SocketStream) -> None:
        await send(stream, body)

    async with raw_agent(answer, {}) as agent:
        with pytest.raises(UnexpectedAnswer):
            async with A2AClient(agent.url):
                pass


async def test_bodies_and_events_without_an_end() -> None:
    sent = 0

    async def answer(request: Request, stream: trio.SocketStream) -> None:
        nonlocal sent
        if request.method == "GET":
            await stream.send_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        else:
            await begin_events(stream)
        while True:
            await stream.send_all(b"x" * 65536)
            sent += 65536

    for served in ({}, card()):
        async with raw_agent(answer, served) as agent:
            sent = 0
            with pytest.raises(UnexpectedAnswer, match="more than 1000000 bytes"):
                async with A2AClient(agent.url, max_body=1_000_000) as client:
                    await client.send("hi")
            assert sent < 10_000_000


async def test_a_stream_of_small_events_without_an_end() -> None:
    async def answer(request: Request, stream: trio.SocketStream) -> None:
        if request.rpc != "SendStreamingMessage":
            await send_json(stream, {"jsonrpc": "2.0", "id": 1, "result": task("CANCELED")})
            return
        await begin_events(stream)
        await send_event(stream, {"task": task()})
        while True:
            await send_event(stream, piece("more "))

    async with raw_agent(answer) as agent, A2AClient(agent.url, max_stream=100_000) as client:
        with trio.fail_after(60), pytest.raises(UnexpectedAnswer, match="more than 100000 bytes in one stream"):
            await client.send("hi")
        assert agent.methods == ["SendStreamingMessage", "CancelTask"]


async def test_nothing_is_read_ahead_of_the_reader() -> None:
    """A reader that stands still keeps the agent's bytes in the sockets, not in this program."""
    sent = 0

    async def answer(request: Request, stream: trio.SocketStream) -> None:
        nonlocal sent
        if request.rpc == "SendStreamingMessage":
            await begin_events(stream)
            await send_event(stream, {"task": task()})
            while True:
                await send_event(stream, piece("x" * 10_000))
                sent += 10_000
        await send_json(stream, {"jsonrpc": "2.0", "id": 1, "result": task("CANCELED")})

    async with raw_agent(answer) as agent, A2AClient(agent.url) as client:
        async with client.stream("hi") as stream:
            await anext(stream)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert sent < 20_000_000


@pytest.mark.parametrize("status_line", ["301 Moved", "307 Again", "308 For good"])
async def test_redirects_are_not_followed(status_line: str) -> None:
    async def answer(request: Request, stream: trio.SocketStream) -> None:
        await send(stream, b"", status=status_line, location="http://127.0.0.1:9/secret")

    async with raw_agent(answer, {}) as agent:
        with pytest.raises(UnexpectedAnswer, match="redirects are not followed"):
            async with A2AClient(agent.url):
                pass
    async with raw_agent(answer) as agent, A2AClient(agent.url, token="secret") as client:
        with pytest.raises(UnexpectedAnswer, match="redirects are not followed"):
            await client.get("t1")


@pytest.mark.parametrize(
    "elsewhere",
    [
        "http://169.254.169.254/a2a",
        "http://127.0.0.1:9/a2a",
        "https://SELF/a2a",
        "http://user@127.0.0.1/a2a",
        "file:///x",
    ],
)
async def test_a_card_cannot_send_the_client_elsewhere(elsewhere: str) -> None:
    served = card(supportedInterfaces=[{"url": elsewhere, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}])
    async with raw_agent(never, served) as agent:
        with pytest.raises(ConfigurationError, match="at another origin than the card"):
            async with A2AClient(agent.url, token="secret"):
                pass


async def test_compressed_answers_are_refused() -> None:
    async def answer(request: Request, stream: trio.SocketStream) -> None:
        await send(stream, b"bomb", content_encoding="gzip")

    async with raw_agent(answer) as agent, A2AClient(agent.url) as client:
        with pytest.raises(UnexpectedAnswer, match="compressed"):
            await client.get("t1")


async def test_a_silent_agent() -> None:
    async def answer(request: Request, stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with raw_agent(answer) as agent, A2AClient(agent.url, silence=0.2) as client:
        with pytest.raises(ConnectionLost, match="no answer in time"):
            await client.get("t1")
        with pytest.raises(ConnectionLost, match="the message may have been executed"):
            await client.send("hi")


async def test_a_time_limit_of_send() -> None:
    async def answer(request: Request, stream: trio.SocketStream) -> None:
        if request.rpc == "CancelTask":
            await send_json(stream, {"jsonrpc": "2.0", "id": 1, "result": task("CANCELED")})
        else:
            await begin_events(stream)
            await send_event(stream, {"task": task()})
            await trio.sleep_forever()

    async with raw_agent(answer) as agent, A2AClient(agent.url) as client:
        with pytest.raises(trio.TooSlowError):
            await client.send("hi", timeout=0.3)
        assert agent.methods == ["SendStreamingMessage", "CancelTask"]
        assert float(agent.requests[1].headers["x-agent-timeout"]) == pytest.approx(0.3, abs=0.05)
        assert agent.requests[1].body["params"]["metadata"]["timeout_s"] <= 0.3


async def test_subscriptions_that_bring_nothing_end() -> None:
    async def answer(request: Request, stream: trio.SocketStream) -> None:
        if request.rpc == "CancelTask":
            await send_json(stream, {"jsonrpc": "2.0", "id": 1, "result": task("CANCELED")})
            return
        await begin_events(stream)
        await send_event(stream, {"task": task()})

    async with raw_agent(answer) as agent, A2AClient(agent.url) as client:
        with trio.fail_after(120), pytest.raises(ConnectionLost, match="8 attempts to resume"):
            await client.send("hi")
        assert agent.methods == ["SendStreamingMessage", *["SubscribeToTask"] * 8, "CancelTask"]


async def test_errors_of_both_bindings() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "TASK_NOT_FOUND"}]

    async def answer(request: Request, stream: trio.SocketStream) -> None:
        if request.method == "GET":
            error: dict[str, Any] = {"code": 404, "status": "NOT_FOUND", "message": "none", "details": details}
            await send_json(stream, {"error": error}, status="404 Not Found")
        else:
            error = {"code": -32001, "message": "x" * 100_000, "data": details}
            await send_json(stream, {"jsonrpc": "2.0", "id": 1, "error": error})

    rest = {"url": "SELF/rest", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"}
    for served in (card(), card(supportedInterfaces=[rest])):
        async with raw_agent(answer, served) as agent, A2AClient(agent.url) as client:
            with pytest.raises(A2AError) as caught:
                await client.get("t1")
            assert (caught.value.code, caught.value.reason) == (-32001, "TASK_NOT_FOUND")
            assert len(str(caught.value)) < 3000


async def test_an_answer_of_http_without_an_error_of_a2a() -> None:
    async def answer(request: Request, stream: trio.SocketStream) -> None:
        await send(stream, b"<html>log in</html>", status="401 Unauthorized")

    async with raw_agent(answer) as agent, A2AClient(agent.url) as client:
        with pytest.raises(A2AError, match="answered 401 Unauthorized") as caught:
            await client.send("hi")
        assert (caught.value.status, caught.value.code) == (401, None)


async def test_a_task_that_ended_while_the_connection_was_cut() -> None:
    whole = task("COMPLETED", artifacts=[{"artifactId": "a1", "parts": [{"text": "one "}, {"text": "two"}]}])

    async def answer(request: Request, stream: trio.SocketStream) -> None:
        if request.rpc == "SendStreamingMessage":
            await begin_events(stream)
            await send_event(stream, {"task": task()})
            await send_event(stream, piece("one ", append=False))
        elif request.rpc == "SubscribeToTask":
            error = {"code": -32004, "message": "it has ended"}
            await send_json(stream, {"jsonrpc": "2.0", "id": 1, "error": error})
        else:
            await send_json(stream, {"jsonrpc": "2.0", "id": 1, "result": whole})

    async with raw_agent(answer) as agent, A2AClient(agent.url) as client:
        async with client.stream("hi") as stream:
            assert [item async for item in stream.items()] == ["one ", "two"]
        assert agent.methods == ["SendStreamingMessage", "SubscribeToTask", "GetTask"]


async def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    gate = trio.Event()

    async def answer(request: Request, stream: trio.SocketStream) -> None:
        await begin_events(stream)
        await send_event(stream, {"task": task()})
        for number in range(20):
            await send_event(stream, piece(f"{number} ", append=number > 0))
            if number == 10:
                await gate.wait()
        await send_event(stream, status("COMPLETED"))

    async with raw_agent(answer) as agent, A2AClient(agent.url) as client:
        async with client.stream("hi") as stream:
            with trio.move_on_after(0.2):
                async for _ in stream:
                    pass
            gate.set()
            assert (await stream.wait()).text == "".join(f"{number} " for number in range(20))
        assert json.dumps(agent.methods) == '["SendStreamingMessage"]'
