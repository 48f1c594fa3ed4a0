"""Handlers that break the rules, all at once on one server: each ends as it must, and nobody else is worse off."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import trio

from .harness import Chat, Server, fresh, output_text, say

AGENT = "unruly"
OPTIONS = {"cleanup_budget": 1.0}
# What their authors must know is in the log. The words of the exceptions are theirs, in tracebacks and all.
# Each is one JSON line, or, where nobody has set up logging, a line with its traceback below.
ALLOWED_LOG = (
    r"^\{.*(handler '|is stuck).*$"
    r"|^run \w+ \(handler '.*\n"
    r"(Traceback .*\n|[ \n].*\n?|(During|The above) .*\n|[\w.]+(Error|Exit|Cancelled)\b.*\n?)*"
)

SECRET = "wombat-4711"
WORST_HEALTH = float(os.environ.get("E2E_WORST_HEALTH", "1.5"))
"""Seconds an answer of /health may take; the machine may be busy with other things, too."""

FAILURES = [
    ("raise_first", "", "ValueError"),
    ("raise_later", "so far", "ValueError"),
    ("raise_group", "so far", "ExceptionGroup"),
    ("raise_sync", "", "LookupError"),
    ("raise_in_child", "so far", "OSError"),
    ("a_set", "so far", "ItemError"),
    ("pretends", "so far", "GeneratorExit"),
    ("too_slow", "so far", "TooSlowError"),
]


def assert_secret(raw: bytes) -> None:
    for word in (SECRET.encode(), b"Traceback", b"Error", b"Exit", b".py", b"trio_agentapp"):
        assert word not in raw, raw


@pytest.mark.parametrize(("do", "said", "_kind"), FAILURES)
async def test_a_failure_is_the_terminal_frame(server: Server, do: str, said: str, _kind: str) -> None:
    session = fresh()
    async with server.chat(do, session_id=session) as chat:
        end = await chat.finish()
    assert end["status"] == "failed"
    assert end["error"] == {"code": "exception", "message": "The agent failed."}
    assert output_text(end) == said
    assert_secret(chat.raw)
    run = await server.get(f"/runs/{chat.run_id}")
    assert (run["state"], run["reason"]) == ("ERROR", "exception")
    answer = await server.call(
        "POST", "/process", {"input": say(), "do": do, "stream": False, "session_id": session}
    )
    assert answer.status == 200
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"] == end["error"]
    assert_secret(answer.body)


@pytest.mark.parametrize("do", ["nothing", "silent"])
async def test_saying_nothing_is_a_completed_answer(server: Server, do: str) -> None:
    async with server.chat(do) as chat:
        end = await chat.finish()
    assert end["status"] == "completed"
    assert end["output"] == []
    assert len(chat.events) == 3


async def test_lone_surrogates_become_the_replacement_character(server: Server) -> None:
    async with server.chat("surrogates") as chat:
        end = await chat.finish()
    assert end["status"] == "completed"
    assert output_text(end) == "a\ufffdb\ufffd"


async def test_yields_inside_nursery_and_scope(server: Server) -> None:
    async with server.chat("yield_in_nursery") as chat:
        assert output_text(await chat.finish()) == "from inside"
    async with server.chat("yield_in_nursery") as chat:
        await chat.started()
    async with server.chat("yield_in_nursery") as chat:
        assert (await chat.finish())["status"] == "completed"


async def test_a_stop_ends_what_raises_in_its_finally(server: Server) -> None:
    session = fresh()
    async with server.chat("raise_in_cleanup", session_id=session) as chat:
        await chat.started()
        await server.stop(session_id=session)
        end = await chat.finish()
    assert (end["status"], end["error"]["message"]) == ("canceled", "stopped")
    assert_secret(chat.raw)


async def test_the_words_of_an_exception_only_in_debug_mode(server: Server, start) -> None:
    other = start("unruly", server.way, debug=True)
    for do, _, kind in FAILURES:
        async with other.chat(do) as chat:
            end = await chat.finish()
        assert end["error"]["code"] == "exception"
        assert kind in end["error"]["message"]
        assert b"Traceback" not in chat.raw
    other.close(allowed=ALLOWED_LOG)


async def test_all_at_once_and_nobody_else_is_worse_off(server: Server) -> None:
    latencies: list[float] = []
    good: list[float] = []
    ends: dict[str, dict[str, Any]] = {}
    chats: dict[str, Chat] = {}
    over = trio.Event()

    async def probe() -> None:
        async with server.connect() as client:
            while not over.is_set():
                began = trio.current_time()
                await client.send("GET", "/health")
                assert (await client.answer()).status == 200
                latencies.append(trio.current_time() - began)
                client.next_request()
                await trio.sleep(0.02)

    async def talk() -> None:
        while not over.is_set():
            began = trio.current_time()
            async with server.chat("good") as chat:
                assert output_text(await chat.finish()) == "I am fine"
            good.append(trio.current_time() - began)

    sessions = {do: fresh(do) for do in ("swallow", "hang", "sleeper", "sleepy_generator", "greedy")}
    sessions |= {do: fresh(do) for do, _, _ in FAILURES} | {"nothing": fresh(), "silent": fresh()}
    stopped = ("swallow", "hang", "sleeper", "sleepy_generator", "greedy")

    async def misbehave(do: str) -> None:
        async with server.chat(do, session_id=sessions[do]) as chat:
            chats[do] = chat
            ends[do] = await chat.finish(30)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(probe)
        nursery.start_soon(talk)
        async with trio.open_nursery() as all_of_them:
            for do in sessions:
                all_of_them.start_soon(misbehave, do)
            for do in stopped:
                await server.wait_mark(f"begin {sessions[do]}")
            began = trio.current_time()
            receipts = {do: await server.stop(session_id=sessions[do]) for do in stopped}
            assert all(receipt["accepted"] for receipt in receipts.values())
            # The one that swallows is reported, and its session stays blocked: no second run may start.
            with server.deadline(10, "report of a stuck run"):
                while not (shown := await server.get(f"/runs/{receipts['swallow']['run_id']}"))["stuck"]:
                    await trio.sleep(0.05)
            assert trio.current_time() - began >= OPTIONS["cleanup_budget"]
            assert (shown["state"], shown["phase"]) == ("RUNNING", "stopping")
            ready = await server.call("GET", "/readiness")
            assert ready.status == 503
            busy = await server.call("POST", "/process", {"input": say(), "session_id": sessions["swallow"]})
            assert busy.status == 409
            with server.deadline(10, "end of all but one"):
                while set(sessions) - set(ends) != {"swallow"}:
                    await trio.sleep(0.02)
            await server.call("POST", "/test/release")
        over.set()

    assert max(latencies) < WORST_HEALTH, sorted(latencies)[-10:]
    assert len(latencies) > 20
    assert len(good) >= 5
    assert max(good) < 3 * WORST_HEALTH
    for do in ("swallow", "sleeper", "sleepy_generator", "greedy"):
        assert (ends[do]["status"], ends[do]["error"]["code"]) == ("canceled", "stopped"), do
        assert output_text(ends[do]) == chats[do].said
    assert (ends["hang"]["status"], ends["hang"]["error"]["code"]) == ("failed", "cleanup_timeout")
    for do, said, _ in FAILURES:
        assert (ends[do]["status"], ends[do]["error"]["code"]) == ("failed", "exception"), do
        assert output_text(ends[do]) == said
    for do in ("nothing", "silent"):
        assert (ends[do]["status"], ends[do]["output"]) == ("completed", [])
    for chat in chats.values():
        assert SECRET.encode() not in chat.raw
        assert b"Traceback" not in chat.raw
    assert (await server.get("/test/live"))["live"] == 0
    assert (await server.call("GET", "/readiness")).status == 200
    assert SECRET not in json.dumps(ends)
