"""Coming back to a stream of one node: live, after the end, too late, and where it cannot be had."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from .harness import Chat, Server, check_events, fresh, say
from .http2 import http2

OPTIONS = {"stalled": 1.0, "keep_alive": 1.0}


@asynccontextmanager
async def attached(server: Server, run: str, after: int = -1, *, by: str = "header") -> AsyncIterator[Chat]:
    async with server.connect() as client:
        headers = {"Last-Event-ID": str(after)} if after >= 0 and by == "header" else {}
        query = f"?starting_after={after}" if by == "query" else ""
        await client.send("GET", f"/runs/{run}/stream{query}", headers=headers)
        yield Chat(client, after + 1)


async def test_a_reader_cut_in_mid_frame_comes_back(server: Server) -> None:
    """Live, and then once more after the end; each part fits to the other."""
    run = fresh("run")
    async with server.chat("work", id=run, seconds=0.6, on_disconnect="continue") as chat:
        await chat.started(5)
    seen = chat.events
    async with attached(server, run, seen[-1]["sequence_number"]) as again:
        await again.finish()
    check_events(seen + again.events)
    async with attached(server, run) as replay:
        await replay.finish()
    assert replay.events == seen + again.events
    async with attached(server, run, 4, by="query") as part:
        await part.finish()
    assert part.events == replay.events[5:]
    last = len(replay.events) - 1
    answer = await server.call("GET", f"/runs/{run}/stream", headers={"Last-Event-ID": str(last)})
    assert (answer.status, answer.body) == (204, b"")
    answer = await server.call("GET", f"/runs/{run}/wait")
    assert answer.json() == replay.events[-1]


async def test_readers_see_the_same_bytes(server: Server) -> None:
    run = fresh("run")
    async with server.chat("work", id=run, seconds=0.4) as chat:
        await chat.begun()
        async with attached(server, run) as other:
            await other.finish()
        await chat.finish()
    assert other.raw == chat.raw


async def test_a_page_is_loaded_again(server: Server) -> None:
    """The run survives that, and it ends when nobody has come back for as long as it is told."""
    run, session = fresh("run"), fresh()
    async with server.chat("endless", id=run, session_id=session, on_disconnect={"cancel_after": 0.6}) as chat:
        await chat.started(1)
    await trio.sleep(0.3)
    async with attached(server, run, chat.events[-1]["sequence_number"]) as again:
        await again.head()
        with server.deadline(10):
            while len(again.events) < 60:
                assert await again.next() is not None
        left_at = trio.current_time()
    await server.wait_mark(f"end {session}")
    assert trio.current_time() - left_at >= 0.59
    assert (await server.get(f"/runs/{run}"))["reason"] == "disconnected"


async def test_what_cannot_be_had(server: Server) -> None:
    answer = await server.call("GET", "/runs/unknown-run/stream")
    assert (answer.status, answer.json()["code"]) == (404, "run_not_found")
    assert (await server.call("GET", "/runs/unknown-run/wait")).status == 404
    run = fresh("run")
    async with server.chat("hello", id=run) as chat:
        await chat.finish()
    for told in ("x", "1.5", "-2", "9" * 30):
        answer = await server.call("GET", f"/runs/{run}/stream", headers={"Last-Event-ID": told})
        assert (answer.status, answer.json()["code"]) == (422, "validation_error")


async def test_the_end_of_a_long_run_is_kept(server: Server) -> None:
    """Who comes back after more than fits into memory is told of the gap, and gets the rest."""
    run = fresh("run")
    async with server.chat("bulk", id=run, pieces=24, size=100_000) as chat:
        await chat.finish()
    async with attached(server, run, 3) as again:
        await again.head()
        received = b""
        while piece := await again.client.data():
            received += piece
    first, *frames = received.split(b"\n\n")[1:-1]
    assert first.startswith(b'event: gap\ndata: {"from":4,"to":')
    beyond = int(first.rsplit(b":", 1)[1].rstrip(b"}")) + 1
    whole = chat.raw.split(b"\n\n")[1:-1]
    assert frames == whole[beyond:]


async def test_attach_and_resume_over_http2(server: Server) -> None:
    run = fresh("run")
    body = {"input": say(), "do": "work", "id": run, "seconds": 0.6, "on_disconnect": "continue"}
    async with http2(server) as client:
        first = await client.request("POST", "/process", body)
        await client.read_until(lambda: client.data[first].count(b"\n\n") > 6, "some frames")
        client.h2.reset_stream(first)
        await client.flush()
        seen = client.data[first].rpartition(b"\n\n")[0].split(b"\n\n")[1:]
        resumed = await client.request("GET", f"/runs/{run}/stream", more={"last-event-id": str(len(seen) - 1)})
        rest = (await client.answer(resumed)).split(b"\n\n")[1:-1]
        replayed = await client.request("GET", f"/runs/{run}/stream")
        whole = (await client.answer(replayed)).split(b"\n\n")[1:-1]
        assert seen + rest == whole
        nothing = await client.request("GET", f"/runs/{run}/stream", more={"last-event-id": str(len(whole) - 1)})
        assert await client.answer(nothing) == b""
        assert client.headers[nothing][":status"] == "204"


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_a_reader_that_does_not_read_is_cut_off(server: Server, version: str) -> None:
    run = fresh("run")
    body: dict[str, Any] = {
        "input": say(),
        "do": "bulk",
        "id": run,
        "pieces": 200,
        "size": 40_000,
        "period": 0.02,
        "on_disconnect": "continue",
    }
    if version == "2":
        async with http2(server) as client:
            number = await client.request("POST", "/process", body)
            await client.read_until(lambda: b"id: 2\n" in client.data[number], "its first events")
            await wait_readers(server, run, 0)
            # What was on its way comes, and then the end of the stream, without a terminal event.
            received = await client.answer(number)
            assert len(received) < 400_000
            behind = received.rpartition(b"\n\n")[0].count(b"\n\n") - 1
            rest = await client.request("GET", f"/runs/{run}/stream", more={"last-event-id": str(behind)})
            await client.read_until(lambda: b"id: %d\n" % (behind + 1) in client.data[rest], "the rest")
    else:
        async with server.connect() as client:
            await client.send("POST", "/process", body)
            await Chat(client).begun()
            await wait_readers(server, run, 0)
    await server.stop(run_id=run, wait=True)


async def wait_readers(server: Server, run: str, count: int) -> None:
    with server.deadline(20, f"{count} readers of {run}"):
        while (await server.get(f"/test/readers/{run}"))["readers"] != count:
            await trio.sleep(0.05)


async def test_head_of_a_run_that_goes_on_is_answered_at_once(server: Server) -> None:
    async with server.chat("gated", session_id=fresh()) as chat:
        await chat.head()
        for path, kind in (("stream", "text/event-stream; charset=utf-8"), ("wait", "application/json")):
            answer = await server.call("HEAD", f"/runs/{chat.run_id}/{path}")
            assert (answer.status, answer.header("content-type"), answer.body) == (200, kind, b"")
            assert answer.header("x-run-id") == chat.run_id
        assert (await server.call("HEAD", "/runs/no-such-run/wait")).status == 404
        assert (await server.get(f"/test/readers/{chat.run_id}"))["readers"] == 1


async def test_head_of_what_lasts_is_answered_at_once(server: Server) -> None:
    """Its connection serves the next request, and the run does not notice."""
    session, run_id = fresh(), fresh("run")
    body = {"input": say(), "do": "gated", "session_id": session, "id": run_id, "background": True}
    assert (await server.call("POST", "/process", body)).status == 202
    await server.wait_mark(f"begin {session}")
    async with server.connect() as client:
        for kind in ("text/event-stream; charset=utf-8", "application/json"):
            path = "stream" if kind.startswith("text") else "wait"
            await client.send("HEAD", f"/runs/{run_id}/{path}")
            answer = await client.answer(5)
            assert (answer.status, answer.header("content-type"), answer.body) == (200, kind, b"")
            assert answer.header("x-run-id") == run_id
            assert answer.header("content-length") is None
            client.next_request()
        await client.send("HEAD", f"/runs/{fresh('run')}/wait")
        assert (await client.answer(5)).status == 404
    assert await server.get(f"/test/readers/{run_id}") == {"readers": 0}
    assert (await server.get(f"/runs/{run_id}"))["state"] == "RUNNING"
    await server.stop(session_id=session)


async def test_head_of_every_route_is_answered_as_get_is(server: Server) -> None:
    session, run_id = fresh(), fresh("run")
    body = {"input": say(), "session_id": session, "id": run_id, "stream": False}
    assert (await server.call("POST", "/process", body)).status == 200
    paths = ["/", "/health", "/readiness", "/liveness", "/openapi.json", "/docs", "/runs", f"/runs/{run_id}"]
    paths += [
        f"/runs/{run_id}/stream",
        f"/runs/{run_id}/wait",
        f"/sessions/{session}",
        f"/sessions/{session}/history",
    ]
    for path in [*paths, "/process/task/none", "/nowhere"]:
        get, head = await server.call("GET", path), await server.call("HEAD", path)
        assert (head.status, head.header("content-type"), head.body) == (
            get.status,
            get.header("content-type"),
            b"",
        )
