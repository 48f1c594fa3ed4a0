"""Tests of `/ws`, under `app.run` and under Hypercorn: one socket carries many runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio_websocket import open_websocket
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from .harness import TIMEOUT, Server, check_events, fresh, output_text
from .sockets import connect


async def test_a_chat(server: Server) -> None:
    session_id = fresh()
    async with connect(server) as socket:
        await socket.start("a", session_id=session_id, user_id="u1")
        started = await socket.wait_for("a", "started")
        done = await socket.wait_for("a", "done")
    assert started["session_id"] == session_id
    assert done == {"type": "done", "id": "a", "state": "FINISHED"}
    assert [kind for _, kind in socket.order] == ["ready", "started", *["event"] * 8, "done"]
    events = socket.events("a")
    check_events(events)
    assert events[-1]["id"] == f"response_{started['run_id']}"
    assert output_text(events[-1]) == "Hello World!"
    async with server.chat(session_id=fresh()) as chat:
        await chat.finish()
        assert [list(event) for event in chat.events] == [list(event) for event in events]


async def test_two_hundred_runs_on_one_socket_and_stops_among_them(server: Server) -> None:
    """No cross-talk: every frame under an id is of the run that was started under it, and stops reach theirs."""
    session_ids = {f"r{number}": fresh() for number in range(200)}
    endless = [id for place, id in enumerate(session_ids) if place % 4 == 0]
    async with connect(server) as socket:
        for id, session_id in session_ids.items():
            times = {} if id in endless else {"times": 5}
            await socket.start(id, "recite", session_id=session_id, period=0.2, **times)
        for id in endless:
            await socket.wait_said(id)
            await socket.send("stop", id=id, wait=True)
        for id in session_ids:
            await socket.wait_for(id, "done")
        receipts = {id: (await socket.wait_for(id, "stopped"))["receipt"] for id in endless}
    assert set(socket.frames) == {None, *session_ids}
    runs = set()
    for id, session_id in session_ids.items():
        frames = socket.frames[id]
        run_id = frames[0]["run_id"]
        runs.add(run_id)
        assert (frames[0]["type"], frames[0]["session_id"]) == ("started", session_id)
        assert {frame["type"] for frame in frames} <= {"started", "event", "stopped", "done"}
        events = socket.events(id)
        check_events(events)
        assert (events[-1]["id"], events[-1]["session_id"]) == (f"response_{run_id}", session_id)
        assert socket.deltas(id) == [f"{session_id}/{run_id}/{n} " for n in range(len(socket.deltas(id)))]
        state = frames[-1]["state"] if frames[-1]["type"] == "done" else frames[-2]["state"]
        if id in endless:
            assert (state, events[-1]["status"]) == ("STOPPED", "canceled")
            assert (receipts[id]["run_id"], receipts[id]["stopped"]) == (run_id, True)
        else:
            assert (state, events[-1]["status"], len(socket.deltas(id))) == ("FINISHED", "completed", 5)
    assert len(runs) == 200


async def test_a_busy_run_does_not_starve_a_quiet_one(server: Server) -> None:
    async with connect(server) as socket:
        await socket.start("busy", "burst", times=5_000, session_id=fresh())
        await socket.wait_said("busy", 100)
        await socket.start("quiet", session_id=fresh())
        await socket.send("ping")
        await socket.wait_for("quiet", "done")
        await socket.wait_for(None, "pong")
        assert not any(frame["type"] == "done" for frame in socket.frames["busy"])
        await socket.wait_for("busy", "done")
    check_events(socket.events("busy"))
    assert len(socket.deltas("busy")) == 5_000


async def test_a_stop_may_follow_its_start_at_once(server: Server) -> None:
    session_id = fresh()
    async with connect(server) as socket:
        await socket.start("a", "endless", session_id=session_id)
        await socket.send("stop", id="a", wait=True)
        assert (await socket.wait_for("a", "done"))["state"] == "STOPPED"
        receipt = (await socket.wait_for("a", "stopped"))["receipt"]
        assert receipt["accepted"]
        await socket.start("a", session_id=session_id)
        while [kind for id, kind in socket.order if id == "a"].count("done") < 2:
            await socket.receive()


async def test_an_input_reaches_its_run(server: Server) -> None:
    async with connect(server) as socket:
        for id in ("a", "b"):
            await socket.start(id, "listen", session_id=fresh())
            await socket.wait_for(id, "started")
        for words in ("one ", "two "):
            for id in ("a", "b"):
                await socket.send("input", id=id, message={"role": "user", "content": id + words})
                await socket.wait_said(id, 1 if words == "one " else 2)
        for id in ("a", "b"):
            await socket.wait_for(id, "done")
            assert socket.deltas(id) == [id + "one ", id + "two "]


async def test_an_id_is_free_once_its_run_is_done(server: Server) -> None:
    session_id = fresh()
    async with connect(server) as socket:
        for _ in range(3):
            await socket.start("a", session_id=session_id)
            await socket.wait_for("a", "done")
            events = socket.events("a")
            check_events(events)
            socket.frames.clear()


# What ends a run's watching.


async def wait_record(server: Server, run_id: str, state: str) -> dict[str, Any]:
    with server.deadline(TIMEOUT, f"end as {state}"):
        while (record := await server.get(f"/runs/{run_id}"))["state"] != state:
            assert record["state"] == "RUNNING", record
            await trio.sleep(0.01)
    return dict(record)


@pytest.mark.parametrize("how", ["close", "reset", "bad message", "detach"])
async def test_leaving_is_a_disconnect(server: Server, how: str) -> None:
    async with connect(server) as socket:
        await socket.start("a", "endless", cleanup=0, session_id=fresh())
        run_id = (await socket.wait_for("a", "started"))["run_id"]
        await socket.wait_said("a")
        match how:
            case "reset":
                await trio.aclose_forcefully(socket.connection._stream)
            case "bad message":
                await socket.connection.send_message("nonsense")
            case "detach":
                await socket.send("detach", id="a")
                await socket.start("a", session_id=fresh())
                await socket.wait_for("a", "done")
            case "close":
                await socket.connection.aclose()
        assert (await wait_record(server, run_id, "STOPPED"))["reason"] == "disconnected"


async def test_a_run_may_outlive_its_socket(server: Server) -> None:
    async with connect(server) as socket:
        await socket.start("a", "recite", times=20, on_disconnect="continue", session_id=fresh())
        run_id = (await socket.wait_for("a", "started"))["run_id"]
        await socket.wait_said("a", 3)
    before = socket.events("a")
    async with connect(server) as socket:
        await socket.send("attach", id="b", run_id=run_id, starting_after=before[-1]["sequence_number"])
        assert (await socket.wait_for("b", "started"))["run_id"] == run_id
        assert (await socket.wait_for("b", "done"))["state"] == "FINISHED"
    check_events(before + socket.events("b"))


# What is wrong harms nothing else.

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "start", "id": "b"}, "validation_error", "$.request"),
    ({"type": "start", "id": "b", "request": []}, "validation_error", "$.request"),
    ({"type": "start", "id": "b", "request": {"input": 5}}, "validation_error", "$.request.input"),
    ({"type": "attach", "id": "b", "run_id": "no-such-run"}, "run_not_found", ""),
    ({"type": "attach", "id": "b", "run_id": "r", "starting_after": "x"}, "validation_error", "$.starting_after"),
    ({"type": "stop", "id": "b"}, "run_not_found", ""),
    ({"type": "stop", "id": "b", "wait": 1}, "validation_error", "$.wait"),
    ({"type": "input", "id": "b", "message": {"role": "user", "content": "x"}}, "run_not_found", ""),
    ({"type": "input", "id": "b", "message": 5}, "validation_error", "$.message"),
    ({"type": "detach", "id": "b"}, "run_not_found", ""),
]


async def test_a_wrong_message_gets_an_error_and_harms_no_run(server: Server) -> None:
    session_id = fresh()
    async with connect(server) as socket:
        await socket.start("a", "gated", session_id=session_id)
        await socket.wait_for("a", "started")
        for message, code, loc in WRONG:
            await socket.connection.send_message(json.dumps(message))
            error = (await socket.wait_for("b", "error"))["error"]
            assert error["code"] == code, message
            assert not loc or error["errors"][0]["loc"] == loc
            del socket.frames["b"]
        for message in ({"type": "start", "id": 5, "request": {}}, {"type": "start", "id": ""}, {"type": "init"}):
            await socket.connection.send_message(json.dumps(message))
            assert (await socket.wait_for(None, "error"))["error"]["code"] == "validation_error"
            del socket.frames[None]
        await socket.start("busy", session_id=session_id)
        error = (await socket.wait_for("busy", "error"))["error"]
        assert (error["code"], error["retryable"]) == ("session_busy", True)
        assert error["retry_after"] > 0
        assert error["active_run_id"] == (await socket.wait_for("a", "started"))["run_id"]
        await server.call("POST", f"/test/gate/{session_id}")
        assert (await socket.wait_for("a", "done"))["state"] == "FINISHED"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("nonsense", 4400),
        ('{"type": "start", "id": "a"', 4400),
        ("[]", 4400),
        ("{}", 4400),
        ('{"type": 5}', 4400),
        ('{"type": "dance", "id": "a"}', 4400),
        (b'{"type": "ping"}', 4400),
        ('{"type": "ping"}' + " " * 2**20, 1009),
        ("\u00e4" * (2**19 + 1), 1009),
        ("x" * (20 * 2**20), 1009),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, str | bytes) else value,
)
async def test_what_is_no_message_closes_its_socket_only(server: Server, message: str | bytes, code: int) -> None:
    async with connect(server) as other:
        await other.start("a", "recite", times=10, period=0.01, session_id=fresh())
        async with connect(server) as socket:
            await socket.connection.send_message(message)
            assert (await socket.wait_closed())[0] == code
        await other.wait_for("a", "done")
    check_events(other.events("a"))


async def test_an_id_in_use(server: Server) -> None:
    async with connect(server) as socket:
        await socket.start("a", "endless", session_id=fresh())
        await socket.start("a", session_id=fresh())
        assert await socket.wait_closed() == (4409, "this id is in use on this socket")


async def test_frames_that_break_the_protocol(server: Server) -> None:
    async with connect(server) as socket:
        # A reserved bit that nothing was agreed on, on a masked text frame.
        await socket.send_raw(b"\xc1\x80\x00\x00\x00\x00")
        assert (await socket.wait_closed())[0] == 1002


async def test_messages_behind_the_end_hold_nothing_up(server: Server) -> None:
    """The server's log would tell, when it shuts down, of a connection that had to be forced."""
    client = Connection(ConnectionType.CLIENT)
    texts = ["nonsense", *['{"type": "ping"}'] * 500]
    async with connect(server) as socket:
        await socket.send_raw(b"".join(client.send(TextMessage(data=text)) for text in texts))
        assert (await socket.wait_closed())[0] == 4400


# The handshake.


async def test_compression_is_not_offered_and_other_protocols_are_ignored(server: Server) -> None:
    extensions = [(b"Sec-WebSocket-Extensions", b"permessage-deflate")]
    async with open_websocket(
        "127.0.0.1", server.port, "/ws", use_ssl=False, subprotocols=["soap"], extra_headers=extensions
    ) as connection:
        assert connection.subprotocol is None
        assert b"sec-websocket-extensions" not in dict(connection.handshake_headers)
        assert json.loads(await connection.get_message()) == {"type": "ready"}


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [
        ("http://127.0.0.1:{port}", True),
        ("https://127.0.0.1:{port}", True),
        ("http://127.0.0.1", False),
        ("http://evil.example:{port}", False),
        ("null", False),
        ("http://[", False),
    ],
)
async def test_web_pages_of_other_origins_are_refused(server: Server, origin: str, welcome: bool) -> None:
    headers = {"Origin": origin.format(port=server.port)}
    async with connect(server, headers=headers, ready=welcome) as socket:
        if not welcome:
            assert await socket.wait_closed() == (4403, "this origin is not allowed")
