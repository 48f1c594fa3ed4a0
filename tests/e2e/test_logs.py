"""What a server writes to its log: one format for all records, which nobody's text can forge."""

from __future__ import annotations

import json
import re
import resource
import socket
import time
from typing import Any

import pytest

from trio_agentapp.protocol.ids import SessionKey

from .conftest import Start
from .harness import WAYS, Server, fresh, say

TEXT = {"AGENTAPP_LOG_FORMAT": "text"}
HEAD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (\w+) +([\w.]+): (.*)")
FORGED = "/boom/x%0A2026-01-01T00:00:00.000Z%20CRITICAL%20forged:%20by%20a%20path%1B%5B2J"


async def ask(server: Server, text: str, session: str) -> None:
    body = {"input": say(text), "session_id": session, "stream": False}
    await server.call("POST", "/process", body)


def records(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]


async def logged(server: Server, text: str) -> None:
    await server.wait_until(lambda: text in server.log, f"{text!r} in the log")


@pytest.mark.parametrize("way", WAYS)
async def test_text_is_for_people_and_cannot_be_forged(start: Start, way: str) -> None:
    server = start("talker", way, env=TEXT)
    await ask(server, "fail", "s\u20281")
    await ask(server, "wordless", "s2")
    await ask(server, "wrong", "s3")
    answer = await server.call("GET", FORGED)
    assert answer.status == 500
    await logged(server, "forged: by a path")
    lines = [line for line in server.log.splitlines() if line and "is ready on" not in line]
    heads = [found for line in lines if (found := HEAD.fullmatch(line))]
    assert "forged" not in [found[2] for found in heads]
    assert "\x1b" not in server.log
    assert not [line for line in lines if not HEAD.fullmatch(line) and not line.startswith("    ")]
    # The user's line is there, and the frames above it are not.
    assert "raise ValueError(" in server.log
    assert "containment.py" not in server.log
    assert "ItemError: a handler may yield str" in server.log
    assert "trio_agentapp/runs" not in server.log.replace("\\", "/")
    said = [found[3] for found in heads if found[2] == "trio_agentapp.runs"]
    assert re.match(r"run \w+ has started \(handler 'chat'\) \[node=\w+ request=\w+ run=\w+ session=", said[0])
    assert re.match(r"run \w+ \(handler 'chat'\): the handler failed \[", said[1])
    assert re.match(
        r"run \w+ has ended: ERROR \(exception\), \d+\.\d{3} s after its request; message to the client: "
        r"The agent failed\. \[node=\w+ request=\w+ run=\w+ session=[0-9a-f]{32}\]$",
        said[2],
    )
    [failed] = [found for found in heads if "forged: by a path" in found[3]]
    assert failed[1] == "ERROR"
    assert f"request={answer.json()['request_id']}]" in failed[3]


@pytest.mark.parametrize("way", WAYS)
async def test_json_has_the_run_in_every_record_of_it(start: Start, way: str) -> None:
    server = start("talker", way, env={"AGENTAPP_LOG_FORMAT": "json"})
    session = fresh()
    await ask(server, "log", session)
    await logged(server, "has ended")
    answer = await server.call("GET", FORGED)
    await logged(server, "forged")
    digest = SessionKey(session, session).digest
    ours = [record for record in records(server) if record.get("session_hash") == digest]
    assert [record["message"] for record in ours[1:5]] == [
        "asked: log",
        "in a thread",
        "%s and %s <Wordless, which has no text> \\ud800",
        "%d and %d 1",
    ]
    assert "careful" in ours[5]["message"]
    assert ours[5]["logger"] == "py.warnings"
    assert re.fullmatch(
        r"run \w+ has ended: FINISHED \(returned\), \d+\.\d{3} s after its request", ours[6]["message"]
    )
    assert len({(record["run_id"], record["request_id"], record["node_id"]) for record in ours}) == 1
    assert ours[0]["run_id"] in ours[0]["message"]
    [failed] = [record for record in records(server) if "forged" in record["message"]]
    assert failed["request_id"] == answer.json()["request_id"]
    assert failed["node_id"] == ours[0]["node_id"]
    assert failed["traceback"].endswith(
        "LookupError: x\n2026-01-01T00:00:00.000Z CRITICAL forged: by a path\x1b[2J"
    )
    assert "\x1b" not in server.log
    # A client chooses its session id, so it may be anything, also a name.
    assert session not in server.log


async def test_what_the_user_has_configured_stays(start: Start) -> None:
    server = start("talker", env={**TEXT, "ROOT": "1"})
    await ask(server, "hello", fresh())
    await logged(server, "has ended")
    assert server.log.count("asked: hello") == 1
    assert "ROOT INFO my.agent asked: hello\n" in server.log
    assert re.search(r"^ROOT INFO trio_agentapp\.runs run \w+ has started", server.log, re.MULTILINE)
    assert not HEAD.search(server.log)


async def test_a_logger_with_a_handler_of_its_own_writes_once(start: Start) -> None:
    server = start("talker", env={**TEXT, "OWN": "1"})
    await ask(server, "hello", fresh())
    await logged(server, "has ended")
    assert server.log.count("asked: hello") == 1
    assert server.log.count("has started") == 1


async def test_hypercorns_own_lines_come_once_and_in_our_format(start: Start) -> None:
    server = start("talker", "hypercorn", env=TEXT, flags=("--access-logfile", "-"))
    await server.call("GET", FORGED)
    await logged(server, '" 500 ')
    running = [line for line in server.log.splitlines() if "Running on" in line]
    assert len(running) == 1
    assert HEAD.fullmatch(running[0])
    access = [line for line in server.log.splitlines() if "forged" in line and '" 500 ' in line]
    assert len(access) == 1
    assert re.match(r"\S+Z INFO +hypercorn\.access: ", access[0])


@pytest.mark.parametrize("way", WAYS)
async def test_no_descriptors_left_is_one_line(start: Start, way: str) -> None:
    server = start("talker", way, env=TEXT, flags=("--workers", "0"))
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (40, 40))
    sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
    await logged(server, "connections cannot be accepted")
    began = time.monotonic()
    await server.wait_until(lambda: time.monotonic() - began > 0.5, "several more attempts to accept")
    for sock in sockets:
        sock.close()
    with server.deadline(15):
        assert (await server.call("GET", "/health")).status == 200
    assert server.log.count("cannot be accepted and wait: Too many open files; raise the limit of open files") == 1
    assert "Traceback" not in server.log


async def test_each_request_is_logged_with_its_duration_if_asked_for(start: Start) -> None:
    server = start("friday", env={"AGENTAPP_ACCESS_LOG": "1"})
    await server.call("GET", "/health?token=secret")
    await server.call("GET", "/nothing")
    await server.call("GET", "/sessions/secret/history")
    await server.call("GET", "/ai-sdk/chat/secret/stream")
    async with server.chat() as chat:
        await chat.finish()
    # Every line is a record, also the one that the app is ready.
    records = [json.loads(line) for line in server.log.splitlines()]
    assert [each["level"] for each in records if "is ready on" in each["message"]] == ["info"]
    found = [each for each in records if each["logger"] == "trio_agentapp.access"]
    told = [record["message"] for record in found if "/readiness" not in record["message"]]
    assert [message.rpartition(" in ")[0] for message in told[:4]] == [
        "GET /health from 127.0.0.1: 200",
        "GET /nothing from 127.0.0.1: 404",
        "GET /sessions/<anything:session_id>/history from 127.0.0.1: 200",
        "GET /ai-sdk/chat/<chat_id>/stream from 127.0.0.1: 204",
    ]
    assert "secret" not in "".join(told)
    await server.wait_until(lambda: "POST /process from 127.0.0.1: 200 in " in server.log, "record of the stream")
    assert all(record["request_id"] for record in found)


async def test_without_the_setting_no_request_is_logged(start: Start) -> None:
    server = start("friday")
    await server.call("GET", "/health")
    assert "trio_agentapp.access" not in server.log
