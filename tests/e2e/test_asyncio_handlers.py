"""Handlers of `framework="asyncio"` from outside: what they send, how they are stopped, what they cannot harm."""

from __future__ import annotations

import pytest
import trio

from trio_agentapp import AgentApp
from trio_agentapp.frameworks.bridge import BridgeClosed

from .harness import Chat, Server, fresh, output_text, say

AGENT = "asyncio_agent"
OPTIONS = {"cleanup_budget": 1.0}
ALLOWED_LOG = (
    r"^\{.*(handler '|is stuck).*$"
    r"|^run \w+ \(handler '.*\n"
    r"(Traceback .*\n|[ \n].*\n?|[\w.]+(Error|Cancelled)\b.*\n?)*"
)


async def test_a_stream_and_a_json_answer(server: Server) -> None:
    session = fresh()
    async with server.chat("hello", session_id=session) as chat:
        end = await chat.finish()
    assert (end["status"], output_text(end)) == ("completed", "client client emitted")
    assert end["usage"]["input_tokens"] == 3
    assert f"exit {session}" in server.marks
    answer = await server.call("POST", "/process", {"input": say(), "do": "hello", "stream": False})
    assert output_text(answer.json()) == "client client emitted"
    assert await server.get("/ask") == {"answer": "client"}


async def test_a_stop_is_one_cancelled_error_and_cleanup_may_await(server: Server) -> None:
    session = fresh()
    async with server.chat("endless", session_id=session) as chat:
        await chat.started(3)
        receipt = await server.stop(wait=True, session_id=session)
        assert [mark for mark in server.marks if mark.endswith(session)] == [
            f"cancelled {session}",
            f"saved {session}",
        ]
        end = await chat.finish()
    assert (receipt["stopped"], receipt["state"], receipt["cleanup"]) == (True, "STOPPED", "done")
    assert (end["status"], end["error"]["code"]) == ("canceled", "stopped")
    assert output_text(end) == chat.said


async def test_a_client_that_disconnects_ends_the_handler(server: Server) -> None:
    session = fresh()
    async with server.chat("endless", session_id=session) as chat:
        await chat.started()
    await server.wait_mark(f"saved {session}")
    assert server.marks.count(f"cancelled {session}") == 1


async def test_a_failure_is_the_terminal_event(server: Server) -> None:
    async with server.chat("fail") as chat:
        end = await chat.finish()
    assert (end["status"], end["error"]["message"]) == ("failed", "The agent failed.")
    assert output_text(end) == "so far"
    assert b"wombat" not in chat.raw


async def test_a_handler_that_swallows_the_stop_and_ends_late_is_stopped(server: Server) -> None:
    session = fresh()
    async with server.chat("late", session_id=session) as chat:
        await chat.started()
        receipt = await server.stop(wait=True, session_id=session)
        assert f"late {session}" in server.marks
        end = await chat.finish()
    assert receipt["state"] == "STOPPED"
    assert end["status"] == "canceled"


async def test_a_handler_that_does_not_end_is_stuck_until_it_does(server: Server) -> None:
    session = fresh()
    async with server.chat("never", session_id=session) as chat:
        await chat.started()
        await server.stop(session_id=session)
        with server.deadline(10, "report of a stuck run"):
            while not (await server.get(f"/runs/{chat.run_id}"))["stuck"]:
                await trio.sleep(0.05)
        (server.folder / "release").touch()
        await chat.finish()
    (server.folder / "release").unlink()
    assert server.marks.count(f"swallowed {session}") == 2


async def test_a_task_that_the_handler_leaves_ends_with_the_run(server: Server) -> None:
    session = fresh()
    async with server.chat("stray", session_id=session) as chat:
        assert (await chat.finish())["status"] == "completed"
    assert f"stray ended {session}" in server.marks


async def test_a_run_receives_input(server: Server) -> None:
    async with server.chat("receive") as chat:
        await chat.started()
        answer = await server.call("POST", f"/runs/{chat.run_id}/input", say("news")[0])
        assert answer.status in (200, 202), answer
        assert output_text(await chat.finish()) == "waiting news"


async def test_a_handler_that_blocks_delays_only_asyncio_code(server: Server) -> None:
    before = server.marks.count("unblocked")
    async with server.chat("block") as chat:
        await chat.started()
        await server.wait_mark("blocking", before + 1)
        for path in ("/health", "/native"):
            assert (await server.call("GET", path)).status == 200
        assert server.marks.count("unblocked") == before
        assert (await chat.finish())["status"] == "completed"


async def test_fifty_chats_stopped_at_once(server: Server) -> None:
    sessions = [fresh() for _ in range(50)]
    ends: list[str] = []

    async def talk(session: str, started: trio.MemorySendChannel[Chat]) -> None:
        async with server.chat("endless", session_id=session) as chat:
            await chat.started()
            await started.send(chat)
            ends.append((await chat.finish())["status"])

    send, receive = trio.open_memory_channel[Chat](0)
    async with trio.open_nursery() as nursery:
        for session in sessions:
            nursery.start_soon(talk, session, send)
        for _ in sessions:
            await receive.receive()
        for session in sessions:
            nursery.start_soon(lambda session=session: server.stop(session_id=session))
    assert ends == ["canceled"] * 50
    assert all(server.marks.count(f"saved {session}") == 1 for session in sessions)


def test_the_bridge_before_the_start_says_where_it_works() -> None:
    with pytest.raises(BridgeClosed, match="works while the app runs: in its lifespan, in handlers and in routes"):
        _ = AgentApp().bridge
