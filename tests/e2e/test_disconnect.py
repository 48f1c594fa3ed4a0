"""A client that leaves: its run is stopped, cleans up, and gives the session free."""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio

from .harness import TIMEOUT, Client, Server, fresh, say

WAYS_TO_LEAVE = ["close", "reset"]


def leave(client: Client, how: str) -> None:
    if how == "close":
        client.close()
    else:
        client.reset()


async def assert_free(server: Server, session: str) -> None:
    """A new run of the session may start within a second of the last one's end."""
    with server.deadline(1, f"new run of {session}"):
        while True:
            body = {"input": say(), "session_id": session, "stream": False}
            answer = await server.call("POST", "/process", body)
            if answer.status == 200:
                break
            assert answer.status == 409, answer
            await trio.sleep(0.01)
    assert answer.json()["status"] == "completed"


async def assert_disconnected(server: Server, run_id: str, cleanup: str = "done") -> None:
    run = await server.get(f"/runs/{run_id}")
    assert (run["state"], run["reason"]) == ("STOPPED", "disconnected")
    assert run["cleanup"] == cleanup
    assert run["stop_requested"] is False
    assert run["cleanup_interrupted"] is False, "no await was cut: it is another task's Cancelled"


@pytest.mark.parametrize("how", WAYS_TO_LEAVE)
async def test_while_the_agent_talks(server: Server, how: str) -> None:
    session = fresh()
    async with server.chat("endless", session_id=session, cleanup=0.4) as chat:
        await chat.started(3)
        leave(chat.client, how)
    await server.wait_mark(f"end {session}")
    assert f"cleaned {session}" in server.marks
    await assert_free(server, session)
    await assert_disconnected(server, chat.run_id)
    state = (await server.get(f"/test/state/{session}/{session}"))["state"]
    assert state["text"].startswith(chat.said)


@pytest.mark.parametrize("how", WAYS_TO_LEAVE)
@pytest.mark.parametrize("stream", [True, False])
async def test_while_the_agent_has_not_said_anything(server: Server, how: str, stream: bool) -> None:
    session, run_id = fresh(), fresh("run")
    body = {"input": say(), "do": "gated", "session_id": session, "stream": stream, "id": run_id, "cleanup": 0.2}
    async with server.connect() as client:
        await client.send("POST", "/process", body)
        await server.wait_mark(f"begin {session}")
        leave(client, how)
    await server.wait_mark(f"end {session}")
    assert f"cleaned {session}" in server.marks
    await assert_free(server, session)
    await assert_disconnected(server, run_id)


PIPELINED = b"GET /liveness HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
UPGRADE = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}


@pytest.mark.parametrize("how", WAYS_TO_LEAVE)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("behind", "headers"),
    [
        pytest.param(b"\r\n", {}, id="an empty line"),
        pytest.param(PIPELINED, {}, id="a request"),
        pytest.param(b"POST /proc", {}, id="half a request"),
        pytest.param(PIPELINED * 10_000, {}, id="ten thousand requests"),
        pytest.param(b"", UPGRADE, id="nothing, but an upgrade is offered"),
    ],
)
async def test_while_something_follows_the_request(
    server: Server, behind: bytes, headers: dict[str, str], stream: bool, how: str
) -> None:
    session, run_id = fresh(), fresh("run")
    body = {"input": say(), "do": "gated", "session_id": session, "stream": stream, "id": run_id}
    async with server.connect() as client:
        await client.send("POST", "/process", body, headers=headers)
        await client.stream.send_all(behind)
        await server.wait_mark(f"begin {session}")
        leave(client, how)
    await server.wait_mark(f"end {session}", seconds=5)
    await assert_disconnected(server, run_id)


async def test_more_than_is_kept_behind_a_request_cuts_its_connection(server: Server) -> None:
    session, run_id = fresh(), fresh("run")
    async with server.connect() as client:
        await client.send("POST", "/process", {"input": say(), "do": "gated", "session_id": session, "id": run_id})
        await server.wait_mark(f"begin {session}")
        # The client fills 1 MiB, and the buffers of both kernels at most.
        with pytest.raises(trio.BrokenResourceError), server.deadline(TIMEOUT):
            await client.stream.send_all(PIPELINED * 2_000_000)
    await server.wait_mark(f"end {session}")
    await assert_disconnected(server, run_id)


async def test_waiting_for_a_run_with_something_behind_the_request(server: Server) -> None:
    session, run_id = fresh(), fresh("run")
    body = {"input": say(), "do": "gated", "session_id": session, "id": run_id, "background": True}
    assert (await server.call("POST", "/process", body)).status == 202
    path = f"/test/readers/{run_id}"
    async with server.connect() as client:
        await client.stream.send_all(client.spell("GET", f"/runs/{run_id}/wait") + PIPELINED)
        with server.deadline(5):
            while await server.get(path) != {"readers": 1}:
                await trio.sleep(0.01)
        client.close()
    with server.deadline(5):
        while await server.get(path) != {"readers": 0}:
            await trio.sleep(0.01)
    await server.stop(session_id=session)


async def test_requests_that_follow_are_answered_in_order(server: Server) -> None:
    """Also such as come while the first is answered."""
    session = fresh()
    async with server.connect() as client:
        await client.send(
            "POST", "/process", {"input": say(), "do": "gated", "session_id": session, "stream": False}
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, PIPELINED * 900)
            await server.wait_mark(f"begin {session}")
            await server.call("POST", f"/test/gate/{session}")
            assert (await client.answer()).json()["output"][0]["content"][0]["text"] == "open"
            for _ in range(900):
                client.next_request()
                assert client.spell("GET", "/liveness")
                assert (await client.answer()).json()["status"] == "healthy"


@pytest.mark.parametrize("how", WAYS_TO_LEAVE)
async def test_while_a_whole_answer_is_made(server: Server, how: str) -> None:
    session, run_id = fresh(), fresh("run")
    body = {"input": say(), "do": "endless", "session_id": session, "stream": False, "id": run_id, "cleanup": 0.2}
    async with server.connect() as client:
        await client.send("POST", "/process", body)
        await server.wait_mark(f"begin {session}")
        leave(client, how)
    await server.wait_mark(f"end {session}")
    await assert_free(server, session)
    await assert_disconnected(server, run_id)


async def test_during_the_cleanup_of_a_stop(server: Server) -> None:
    """The stop came first: it is what ended the run, and the cleanup is not disturbed."""
    session = fresh()
    async with server.chat("endless", session_id=session, cleanup=0.6) as chat:
        await chat.started()
        await server.stop(session_id=session)
        await server.wait_mark(f"cleaning {session}")
        chat.client.reset()
    await server.wait_mark(f"end {session}")
    assert server.marks.count(f"cleaned {session}") == 1
    assert (await server.get(f"/runs/{chat.run_id}"))["reason"] == "stopped"


async def test_before_the_body_is_complete_nothing_starts(server: Server) -> None:
    session = fresh()
    async with server.connect() as client:
        request = client.spell("POST", "/process", {"input": say(), "session_id": session})
        await client.stream.send_all(request[:-5])
        client.reset()
    # Whatever would come of it has come once a later request on another connection is through.
    await assert_free(server, fresh())
    assert f"begin {session}" not in server.marks


async def test_half_a_connection_is_a_disconnect(server: Server) -> None:
    session = fresh()
    async with server.chat("endless", session_id=session) as chat:
        await chat.started()
        await chat.client.stream.send_eof()
        await server.wait_mark(f"end {session}")
    await assert_disconnected(server, chat.run_id)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_run_that_goes_on(server: Server, stream: bool) -> None:
    session, run_id = fresh(), fresh("run")
    fields = {"session_id": session, "id": run_id, "stream": stream, "on_disconnect": "continue"}
    async with server.connect() as client:
        await client.send("POST", "/process", {"input": say(), "do": "gated", **fields})
        await server.wait_mark(f"begin {session}")
        client.close()
    assert (await server.get(f"/runs/{run_id}"))["state"] == "RUNNING"
    await server.call("POST", f"/test/gate/{session}")
    await server.wait_mark(f"end {session}")
    with server.deadline(5):
        while (run := await server.get(f"/runs/{run_id}"))["state"] == "RUNNING":
            await trio.sleep(0.01)
    assert (run["state"], run["reason"]) == ("FINISHED", "returned")


async def test_a_run_that_goes_on_for_a_while(server: Server) -> None:
    session, run_id = fresh(), fresh("run")
    policy: dict[str, Any] = {"cancel_after": 0.5}
    async with server.chat("gated", session_id=session, id=run_id, on_disconnect=policy) as chat:
        await chat.begun()
        await server.wait_mark(f"begin {session}")
        chat.client.close()
    assert (await server.get(f"/runs/{run_id}"))["state"] == "RUNNING"
    await server.wait_mark(f"end {session}")
    await assert_disconnected(server, run_id)


async def test_twenty_leave_at_once(server: Server) -> None:
    sessions = [fresh() for _ in range(20)]

    async def one(session: str) -> None:
        async with server.chat("endless", session_id=session, cleanup=0.3) as chat:
            await chat.started()
            leave(chat.client, WAYS_TO_LEAVE[sessions.index(session) % 2])

    async with trio.open_nursery() as nursery:
        for session in sessions:
            nursery.start_soon(one, session)
    for session in sessions:
        await server.wait_mark(f"end {session}")
        assert f"cleaned {session}" in server.marks
    async with trio.open_nursery() as nursery:
        for session in sessions:
            nursery.start_soon(assert_free, server, session)
    assert (await server.get("/test/live"))["live"] == 0


async def test_descriptors_do_not_leak(server: Server) -> None:
    """A connection is closed when its client has closed it, long before the keep-alive time is over."""
    pid = (await server.get("/test/live"))["pid"]

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    before = descriptors()
    for number in range(20):
        async with server.chat("endless", session_id=fresh(), cleanup=0) as chat:
            await chat.started()
            leave(chat.client, WAYS_TO_LEAVE[number % 2])
        async with server.chat() as chat:
            await chat.finish()
    await server.wait_until(lambda: descriptors() <= before + 3, "closing of descriptors", 3)
