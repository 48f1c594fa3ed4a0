"""Responses before the end of a request's body: the client gets them, and knows what becomes of the connection."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from .harness import Client, Server, fresh, say
from .http2 import http2

AGENT = "behind"
ALLOWED_LOG = r"^.*/admin/status from .*: refused.*$"
SIZE = 900_000
HEADERS = {"Content-Length": str(SIZE), "Content-Type": "application/json"}


async def begin(client: Client, path: str, *, chunked: bool = False) -> None:
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {SIZE}"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    await client.stream.send_all(head.encode())


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_client_is_told_that_the_connection_closes(server: Server, chunked: bool) -> None:
    async with server.connect() as client:
        await begin(client, "/guarded", chunked=chunked)
        received = b""
        with server.deadline(15, "refusal"):
            while not received.endswith(b"\r\n\r\nno"):
                received += await client.stream.receive_some()
            assert received.startswith(b"HTTP/1.1 401"), received
            assert b"\r\nconnection: close\r\n" in received.lower()
            # The rest is taken: a reset could take the response away from a client that has not read it yet.
            for _ in range(5):
                rest = b" " * 10_000
                await client.stream.send_all(b"2710\r\n%s\r\n" % rest if chunked else rest)
                await trio.lowlevel.checkpoint()
            assert await client.stream.receive_some() == b""


async def test_a_client_that_sends_for_ever_is_cut_off(server: Server) -> None:
    async with server.connect() as client:
        await begin(client, "/guarded")
        with server.deadline(15, "reset"), suppress(trio.BrokenResourceError):
            while True:
                await client.stream.send_all(b" ")
                await trio.sleep(0.01)


async def test_after_a_whole_body_the_connection_stays(server: Server) -> None:
    async with server.connect() as client:
        for _ in range(3):
            await client.send("POST", "/guarded", b"{}")
            answer = await client.answer()
            assert (answer.status, answer.header("connection")) == (401, None)
            client.next_request()
            await client.send("GET", "/admin/status")
            answer = await client.answer()
            assert (answer.status, answer.header("connection")) == (401, None)
            client.next_request()


async def test_other_streams_of_an_http2_connection_go_on(server: Server) -> None:
    session = fresh()
    async with http2(server) as client:
        walking = await client.request("POST", "/process", {**walk(session), "steps": 1})
        await client.read_until(lambda: b"step 0. " in client.data[walking], "first step")
        # More than the window of the connection, so what is thrown away has to be acknowledged.
        for _ in range(6):
            refused = client.h2.get_next_available_stream_id()
            head = [(":method", "POST"), (":path", "/guarded"), (":scheme", "http"), (":authority", "127.0.0.1")]
            client.h2.send_headers(refused, [*head, *((name.lower(), value) for name, value in HEADERS.items())])
            client.data[refused] = b""
            await client.flush()
            assert await client.answer(refused) == b"no"
            for _ in range(2):
                if refused not in client.reset:
                    client.h2.send_data(refused, b" " * 16_000)
                    await client.flush()
                    number = await client.request("GET", "/seen")
                    assert b'"http":"2"' in await client.answer(number)
            assert refused in client.reset
        while not (await server.call("POST", f"/step/{session}")).json()["taken"]:
            await trio.sleep(0.01)
        assert b'"status":"completed"' in await client.answer(walking)


async def test_an_http2_connection_has_any_number_of_requests(server: Server) -> None:
    session = fresh()
    async with http2(server) as client:
        walking = await client.request("POST", "/process", {**walk(session), "steps": 1})
        await client.read_until(lambda: b"step 0. " in client.data[walking], "first step")
        for _ in range(22):
            numbers = [await client.request("GET", "/health") for _ in range(50)]
            for number in numbers:
                await client.answer(number)
        while not (await server.call("POST", f"/step/{session}")).json()["taken"]:
            await trio.sleep(0.01)
        assert b'"status":"completed"' in await client.answer(walking)


def walk(session: str) -> dict[str, object]:
    return {"input": say(), "do": "walk", "session_id": session}
