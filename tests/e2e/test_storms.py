"""Many at once. `E2E_STORM=400` makes them long."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
import trio

from .harness import Server, fresh, say

STORM = int(os.environ.get("E2E_STORM", "40"))
AT_ONCE = 10


async def swarm(job: Any, count: int = STORM) -> None:
    """`job(number)` for each number, some of them at once."""
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one(number: int) -> None:
        async with limit:
            await job(number)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)


@pytest.mark.parametrize("named", ["session and run", "run alone"])
async def test_stops_by_run_id_around_the_start(server: Server, named: str) -> None:
    """Sent 0 to 20 ms after the request was written: before it is read, while it claims, while it runs."""
    delays = random.Random(7)
    reasons: list[str] = []

    async def one(number: int) -> None:
        run_id, session = fresh("storm"), fresh()
        async with server.connect() as chat_client, server.connect() as stop_client:
            body = {"input": say(), "do": "endless", "cleanup": 0, "id": run_id, "session_id": session}
            who = {"session_id": session} if named == "session and run" else {}
            await chat_client.send("POST", "/process", body)
            await trio.sleep(delays.uniform(0, 0.020))
            await stop_client.send("POST", f"/stop?wait={number % 2}", {"input": [], "run_id": run_id, **who})
            receipt = (await stop_client.answer()).json()
            assert receipt["accepted"] is True, receipt
            assert receipt["run_id"] == run_id
            answer = await chat_client.answer()
        assert answer.status == 200
        assert answer.body.count(b'"status":"canceled"') == 1, answer
        run = await server.get(f"/runs/{run_id}")
        assert run["state"] == "STOPPED", run
        reasons.append(run["reason"])

    await swarm(one)
    assert set(reasons) <= {"stopped", "stopped_before_start"}
    assert len(reasons) == STORM
    assert (await server.get("/test/live"))["live"] == 0


async def test_stops_by_session_on_the_first_event(server: Server) -> None:
    """None is lost: a run with more than 100 ms of work left does not finish."""
    lost: list[Any] = []

    async def one(number: int) -> None:
        session = fresh()
        async with server.chat("work", seconds=1.0, session_id=session) as chat:
            with server.deadline(15):
                await chat.next()
            receipt = await server.stop(session_id=session)
            end = await chat.finish()
            if end["status"] != "canceled" or not receipt["accepted"]:
                lost.append((receipt, end))

    await swarm(one)
    assert not lost
    assert (await server.get("/test/live"))["live"] == 0


async def test_stops_around_the_end(server: Server) -> None:
    """Whichever came first decides; the receipt, the frame and the record tell the same."""
    seen: set[str] = set()

    async def one(number: int) -> None:
        session = fresh()
        delay = 0.02 * (number % 5)
        async with server.chat("work", seconds=0.06, session_id=session) as chat:
            await chat.begun()
            await trio.sleep(delay)
            receipt = await server.stop(wait=True, session_id=session, run_id=chat.run_id)
            end = await chat.finish()
        run = await server.get(f"/runs/{chat.run_id}")
        assert (end["status"], run["state"]) in {("canceled", "STOPPED"), ("completed", "FINISHED")}
        assert receipt["stopped"] == (run["state"] == "STOPPED"), (receipt, run)
        assert receipt["state"] == run["state"]
        seen.add(run["state"])

    await swarm(one)


async def test_start_and_stop_over_and_over_in_one_session(server: Server) -> None:
    """S4: a stop never hits a later run of the session, and the session is free each time."""
    session = fresh()
    for number in range(STORM // 2):
        async with server.chat("endless", session_id=session, cleanup=0, period=0.005) as chat:
            await chat.started()
            if number % 2:
                await server.stop(session_id=session)
            else:
                await server.stop(session_id=session, wait=True)
            assert (await chat.finish())["status"] == "canceled"
        assert server.marks.count(f"begin {session}") == server.marks.count(f"end {session}") == number + 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_hundred_starts_of_one_session(server: Server, stream: bool) -> None:
    """S1: exactly one runs."""
    session = fresh()
    answers: list[Any] = []
    winners: list[str] = []
    all_in = trio.Event()

    async def one(number: int) -> None:
        body = {"input": say(), "do": "endless", "cleanup": 0, "session_id": session, "stream": stream}
        async with server.connect() as client:
            await client.send("POST", "/process", body)
            head = await client.head(30)
            if head.status == 200:
                winners.append(head.header("x-run-id") or "")
                while await client.data():
                    pass
            else:
                while piece := await client.data():
                    head.body += piece
                answers.append(head)
            if len(answers) == 99:
                all_in.set()

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(one, number)
        with server.deadline(30, f"99 refusals, {len(answers)} so far"):
            await all_in.wait()
        receipt = await server.stop(wait=True, session_id=session)
        assert receipt["stopped"] is True
    assert winners == [receipt["run_id"]]
    assert server.marks.count(f"begin {session}") == 1
    for answer in answers:
        assert answer.status == 409
        assert answer.header("content-type") == "application/problem+json"
        assert int(answer.header("retry-after")) >= 1
        problem = answer.json()
        assert (problem["code"], problem["retryable"]) == ("session_busy", True)
        assert problem["active_run_id"] == winners[0]
        assert b"sequence_number" not in answer.body
        assert b"retry: 3000" not in answer.body


async def test_a_storm_of_everything(server: Server) -> None:
    """Chats, stops, disconnects and second starts on few sessions: nothing is left over."""
    sessions = [fresh() for _ in range(5)]
    dice = random.Random(11)

    async def one(number: int) -> None:
        session = dice.choice(sessions)
        what = dice.choice(["finish", "leave", "stop", "reset"])
        await trio.sleep(dice.uniform(0, 0.05))
        async with server.chat("endless" if what != "finish" else "hello", session_id=session, cleanup=0) as chat:
            head = await chat.client.head()
            if head.status == 409:
                return
            assert head.status == 200
            chat._head = head
            if what == "stop":
                await server.stop(run_id=chat.run_id)
            if what in ("stop", "finish"):
                await chat.finish()
            elif what == "reset":
                chat.client.reset()

    await swarm(one, 2 * STORM)
    with server.deadline(10, "end of all runs"):
        while (await server.get("/test/live"))["live"]:
            await trio.sleep(0.02)
    for session in sessions:
        assert server.marks.count(f"begin {session}") == server.marks.count(f"end {session}")
        async with server.chat(session_id=session) as chat:
            assert (await chat.finish())["status"] == "completed"
