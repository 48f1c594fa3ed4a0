"""Tests of stops: they act at once, after cleanup, exactly once, and on no other run.

S1 and S4 are guarantees of docs/reference/interrupt-protocol.md.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from .harness import Chat, Server, fresh, output_text, say


async def saved(server: Server, user: str, session: str) -> Any:
    return (await server.get(f"/test/state/{user}/{session}"))["state"]


def assert_canceled(chat: Chat, end: dict[str, Any], reason: str = "stopped") -> None:
    """Exactly one terminal frame (the client of these tests sees to that), with what was said so far."""
    assert end["status"] == "canceled"
    assert end["error"] == {"code": "stopped", "message": reason}
    assert output_text(end) == chat.said
    assert all(message["status"] == "incomplete" for message in end["output"][-1:])


async def test_a_stop_answers_at_once_and_the_stream_ends_well(server: Server) -> None:
    user, session = fresh("u"), fresh()
    async with server.chat("endless", user_id=user, session_id=session, cleanup=2) as chat:
        await chat.started(3)
        receipt = await server.stop(user_id=user, session_id=session)
        assert f"cleaned {session}" not in server.marks, "it waited for the cleanup"
        assert receipt["status"] == "success"
        assert isinstance(receipt["message"], str)
        assert receipt["accepted"] is True
        assert receipt["stopped"] is False
        assert receipt["run_id"] == chat.run_id
        assert receipt["state"] == "RUNNING"
        shown = await server.get(f"/runs/{chat.run_id}")
        assert (shown["state"], shown["phase"], shown["reason"]) == ("RUNNING", "stopping", "stopped")
        end = await chat.finish()
    assert_canceled(chat, end)
    assert f"end {session}" in server.marks, "the terminal frame came before the end of the cleanup"
    assert await saved(server, user, session) == {"text": output_text(end)}
    run = await server.get(f"/runs/{chat.run_id}")
    assert (run["state"], run["phase"], run["reason"]) == ("STOPPED", "ended", "stopped")
    assert (run["user_id"], run["session_id"], run["run_id"]) == (user, session, chat.run_id)
    assert run["stop_requested"] is True
    assert run["cleanup"] == "done"
    assert run["cleanup_interrupted"] is False
    assert run["stuck"] is False


async def test_a_waiting_stop_answers_when_nothing_runs_any_more(server: Server) -> None:
    """300 ms of awaits in `run.cleanup()`, and a save in a plain `finally`."""
    user, session = fresh("u"), fresh()
    async with server.chat("endless", user_id=user, session_id=session, cleanup=0.3) as chat:
        await chat.started(2)
        receipt = await server.stop(wait=True, user_id=user, session_id=session)
        assert [mark for mark in server.marks if mark.endswith(session)] == [
            f"begin {session}",
            f"cleaning {session}",
            f"cleaned {session}",
            f"end {session}",
        ]
        state = await saved(server, user, session)
        assert receipt["accepted"] is True
        assert receipt["stopped"] is True
        assert receipt["state"] == "STOPPED"
        assert receipt["cleanup"] == "done"
        assert receipt["run_id"]
        assert receipt["latency_ms"] >= 290
        assert receipt["node"]
        end = await chat.finish()
    assert_canceled(chat, end)
    assert state == {"text": output_text(end)}


async def test_the_session_is_free_when_the_terminal_frame_is_seen(server: Server) -> None:
    session = fresh()
    for _ in range(3):
        async with server.chat("endless", session_id=session, cleanup=0.1) as chat:
            await chat.started()
            await server.stop(session_id=session)
            await chat.finish()
    assert server.marks.count(f"end {session}") == 3


async def test_a_busy_session_is_refused_until_its_cleanup_is_over(server: Server) -> None:
    """S1: no body starts while the previous run's cleanup still executes."""
    session = fresh()
    async with server.chat("endless", session_id=session, cleanup=1) as chat:
        await chat.started()
        await server.stop(session_id=session)
        await server.wait_mark(f"cleaning {session}")
        answer = await server.call("POST", "/process", {"input": say(), "session_id": session})
        assert answer.status == 409
        assert answer.json()["active_run_id"] == chat.run_id
        await chat.finish()
    answer = await server.call("POST", "/process", {"input": say(), "session_id": session, "stream": False})
    assert answer.status == 200
    assert (
        server.marks.index(f"end {session}") < len(server.marks) - server.marks[::-1].index(f"begin {session}") - 1
    )


async def test_a_second_stop_changes_nothing(server: Server) -> None:
    session = fresh()
    async with server.chat("endless", session_id=session, cleanup=0.6) as chat:
        await chat.started()
        first = await server.stop(session_id=session)
        await server.wait_mark(f"cleaning {session}")
        second = await server.stop(session_id=session)
        third = await server.stop(wait=True, run_id=chat.run_id)
        assert first["run_id"] == second["run_id"] == third["run_id"] == chat.run_id
        assert second["accepted"] is True
        assert third["stopped"] is True
        assert_canceled(chat, await chat.finish())
    assert server.marks.count(f"cleaned {session}") == 1
    late = await server.stop(run_id=chat.run_id)
    assert (late["accepted"], late["stopped"], late["state"]) == (False, True, "STOPPED")


async def test_many_stops_at_once_are_one(server: Server) -> None:
    session = fresh()
    receipts: list[dict[str, Any]] = []

    async def stop(wait: bool) -> None:
        receipts.append(await server.stop(wait=wait, session_id=session))

    async with server.chat("endless", session_id=session) as chat:
        await chat.started()
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(stop, number % 2 == 0)
        assert_canceled(chat, await chat.finish())
    assert all(receipt["accepted"] and receipt["run_id"] == chat.run_id for receipt in receipts)
    assert [receipt["stopped"] for receipt in receipts].count(True) >= 5
    assert server.marks.count(f"cleaned {session}") == 1


@pytest.mark.parametrize("wait", [False, True])
async def test_a_stop_of_an_idle_session(server: Server, wait: bool) -> None:
    session = fresh()
    receipt = await server.stop(wait=wait, session_id=session)
    assert (receipt["accepted"], receipt["stopped"], receipt["run_id"]) == (False, False, None)
    assert receipt["state"] == "IDLE"
    async with server.chat(session_id=session) as chat:
        assert (await chat.finish())["status"] == "completed"
    receipt = await server.stop(wait=wait, session_id=session)
    assert (receipt["accepted"], receipt["stopped"]) == (False, False)
    assert receipt["state"] == "FINISHED"
    # Nothing was left behind that would hit a later run.
    async with server.chat(session_id=session) as chat:
        assert (await chat.finish())["status"] == "completed"


@pytest.mark.parametrize("named", ["with its session", "alone"])
@pytest.mark.parametrize("wait", [False, True])
async def test_a_stop_before_its_run(server: Server, named: str, wait: bool) -> None:
    """By run id: the run never starts, and its stream says so."""
    run_id, session = fresh("early"), fresh()
    who = {"user_id": "u1", "session_id": session}
    receipt = await server.stop(wait=wait, run_id=run_id, **(who if named == "with its session" else {}))
    assert receipt["accepted"] is True
    assert receipt["stopped"] is False
    assert receipt["run_id"] == run_id
    async with server.chat("endless", id=run_id, **who) as chat:
        end = await chat.finish()
    assert end["status"] == "canceled"
    assert end["error"]["code"] == "stopped"
    assert end["output"] == []
    assert f"begin {session}" not in server.marks
    run = await server.get(f"/runs/{run_id}")
    assert (run["state"], run["reason"]) == ("STOPPED", "stopped_before_start")
    # Only that run: the session is free for the next.
    async with server.chat(**who) as chat:
        assert (await chat.finish())["status"] == "completed"


async def test_a_stop_by_run_id_alone(server: Server) -> None:
    user, session = fresh("u"), fresh()
    async with server.chat("endless", user_id=user, session_id=session) as chat:
        await chat.started()
        answer = await server.call("POST", "/stop?wait=1", {"run_id": chat.run_id})
        assert answer.status == 200
        assert answer.json()["stopped"] is True
        assert_canceled(chat, await chat.finish())


async def test_a_stop_takes_id_for_run_id(server: Server) -> None:
    async with server.chat("endless", session_id=fresh()) as chat:
        await chat.started()
        assert (await server.stop(wait=True, id=chat.run_id))["stopped"] is True
        assert_canceled(chat, await chat.finish())


async def test_a_late_stop_does_not_touch_the_next_run(server: Server) -> None:
    session = fresh()
    async with server.chat(session_id=session) as first:
        await first.finish()
    async with server.chat("endless", session_id=session) as second:
        await second.started()
        receipt = await server.stop(wait=True, session_id=session, run_id=first.run_id)
        assert (receipt["accepted"], receipt["stopped"], receipt["state"]) == (False, False, "FINISHED")
        await second.started(len(second.deltas) + 3)


async def test_anothers_session_and_a_wrong_pair_stop_nobody(server: Server) -> None:
    session = fresh()
    async with server.chat("endless", user_id="alice", session_id=session) as chat:
        await chat.started()
        assert not (await server.stop(user_id="bob", session_id=session))["accepted"]
        assert not (await server.stop(session_id=session))["accepted"]
        await server.stop(user_id="bob", session_id=session, run_id=chat.run_id)
        await server.stop(user_id="bob", run_id=chat.run_id)
        await chat.started(len(chat.deltas) + 3)
        assert (await server.get(f"/runs/{chat.run_id}"))["phase"] == "running"


async def test_no_statement_runs_after_a_stopped_nursery(server: Server) -> None:
    """The handler's own nursery absorbs nothing: its tool is cancelled, and the loop does not go on."""
    session = fresh()
    async with server.chat("nursery", session_id=session) as chat:
        await chat.started()
        receipt = await server.stop(wait=True, session_id=session)
        assert receipt["stopped"] is True
        assert_canceled(chat, await chat.finish())
    marks = [mark for mark in server.marks if mark.endswith(session)]
    assert marks == [f"begin {session}", f"tool cancelled {session}", f"end {session}"]


async def test_an_open_tool_call_gets_its_output(server: Server) -> None:
    session = fresh()
    async with server.chat("calls", session_id=session) as chat:
        with server.deadline(10):
            while (event := await chat.next()) is None or (event["object"], event["status"]) != (
                "message",
                "completed",
            ):
                pass
        await server.stop(session_id=session)
        end = await chat.finish()
    assert [message["type"] for message in end["output"]] == ["function_call", "function_call_output"]
    assert end["output"][1]["content"][0]["data"] == {"call_id": "call_1", "output": "interrupted"}


async def test_a_stop_before_the_first_word_of_an_unstreamed_chat(server: Server) -> None:
    session = fresh()
    async with server.connect() as client:
        await client.send(
            "POST", "/process", {"input": say(), "do": "gated", "session_id": session, "stream": False}
        )
        await server.wait_mark(f"begin {session}")
        await server.stop(session_id=session)
        answer = await client.answer()
    assert answer.status == 200
    assert answer.json()["status"] == "canceled"
    assert answer.json()["output"] == []


async def test_a_deadline_of_the_clients_own(server: Server) -> None:
    session = fresh()
    async with server.chat("endless", session_id=session, timeout_s=0.3, cleanup=0.2) as chat:
        end = await chat.finish()
    assert end["status"] == "failed"
    assert end["error"]["code"] == "deadline_exceeded"
    assert f"cleaned {session}" in server.marks
    assert output_text(end) == chat.said
    run = await server.get(f"/runs/{chat.run_id}")
    assert (run["state"], run["reason"]) == ("ERROR", "deadline_exceeded")


async def test_a_stop_needs_a_name(server: Server) -> None:
    answer = await server.call("POST", "/stop", {"input": []})
    assert answer.status == 422
    assert answer.json()["code"] == "validation_error"


@pytest.mark.parametrize("value", ["2", "yes", "", "1; DROP"])
async def test_wait_is_0_or_1(server: Server, value: str) -> None:
    answer = await server.call("POST", f"/stop?wait={value.replace(' ', '%20')}", {"session_id": "s"})
    assert answer.status == 422
    assert answer.json()["errors"][0]["loc"] == "query.wait"


async def test_an_unknown_run_is_not_found(server: Server) -> None:
    answer = await server.call("GET", "/runs/nobody-knows-it")
    assert answer.status == 404
    assert answer.json()["code"] == "run_not_found"
