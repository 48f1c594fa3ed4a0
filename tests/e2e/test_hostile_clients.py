"""Clients of every protocol that are hostile, or unlucky: what they send harms no run and no other user."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import h11
import pytest
import trio

from .conftest import Start
from .harness import Answer, Server, fresh
from .test_bad_input import OURS
from .test_every_entry import ENTRIES, Body, Entry, begun, record_of

HTTP = {name: entry for name, entry in ENTRIES.items() if name not in ("socket", "task")}
ANN, BOB = ({"Authorization": f"Bearer {name}"} for name in ("ann", "bob"))
ALLOWED_LOG = r"^.*(the handler failed|ended without output).*$"
AGENT = "a2a_agent"
OPTIONS = {"max_body_bytes": 200_000, "read_timeout": 1.0, "enable_stream_task": True}

each_http = pytest.mark.parametrize("entry", HTTP.values(), ids=HTTP)

DEEP = [b"[" * 90_000, b'{"a":' * 30_000, b'{"a":' * 5000 + b"1" + b"}" * 5000]
WRONG = [b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b'{"a":"\xff"}', b"\x00", *DEEP]


def refused(entry: Entry, answer: Answer) -> None:
    """A refusal in the form of the protocol, which shows nothing of the server's inside."""
    assert answer.status in (400, 404, 408, 409, 413, 415, 422) or (
        entry.path == "/a2a" and answer.status == 200
    ), answer
    assert not OURS.search(answer.body), answer
    body = answer.body.decode()
    if entry.path == "/ai-sdk/chat":
        assert answer.header("content-type") == "text/plain; charset=utf-8"
    elif entry.path == "/ag-ui":
        assert json.loads(body)["type"] == "RUN_ERROR"
    elif entry.path == "/process":
        assert json.loads(body)["code"]
    else:
        found = json.loads(body.removeprefix("data: "))
        assert found["error"]["message"]


@each_http
async def test_bodies_that_are_no_requests(server: Server, entry: Entry) -> None:
    for body in WRONG:
        refused(entry, await server.call("POST", entry.path, body, headers=dict(entry.headers)))
    assert (await unfinished(server, entry, 10**9)).status in (200, 413)


@each_http
async def test_half_a_body(server: Server, entry: Entry) -> None:
    refused(entry, await unfinished(server, entry, 100))


async def unfinished(server: Server, entry: Entry, length: int) -> Answer:
    """The answer to a request of which only the first bytes are sent."""
    fields = {
        "Host": "127.0.0.1",
        **entry.headers,
        "Content-Type": "application/json",
        "Content-Length": str(length),
    }
    async with server.connect() as client:
        request = h11.Request(method="POST", target=entry.path, headers=list(fields.items()))
        await client.stream.send_all((client._http.send(request) or b"") + b'{"input": "say')
        answer = await client.answer()
    refused(entry, answer)
    return answer


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all members of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, each in inner for found in ((*path, key), *places(each, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = new
    return copy


STRANGE: list[Any] = [
    None,
    True,
    -1,
    10**30,
    1.5e300,
    "",
    "x" * 300,
    "a\r\nX-Evil: 1",
    "\ud800",
    "\u4f60\u597d",
    "\x00",
    [],
    {},
    [[]],
    [None],
    {"": {}},
    [{"type": "text"}],
]


@each_http
async def test_members_of_the_wrong_kind(server: Server, entry: Entry) -> None:
    body = entry.body("say hi", fresh(), {})
    random = Random(entry.path)
    for place in places(body):
        for strange in random.sample(STRANGE, 7):
            async with server.connect() as client:
                await client.send("POST", entry.path, changed(body, place, strange), headers=dict(entry.headers))
                answer = await client.answer()
            if answer.status != 200:
                refused(entry, answer)
            assert not answer.header("x-evil")
            assert answer.status < 500, (place, strange, answer)
            assert not OURS.search(answer.body), (place, strange, answer)


# Others.


@pytest.fixture
def guarded(start: Start) -> Server:
    return start(AGENT, env={"SECURED": "1"}, **OPTIONS)


async def ask(server: Server, entry: Entry, session: str, user: dict[str, str]) -> tuple[str, str, Body]:
    """Start a run that asks; its id, and the path and body that answer."""
    body = entry.body("approve", session, {})
    answer = await server.call("POST", entry.path, body, headers={**entry.headers, **user})
    assert answer.status == 200, answer
    assert entry.reply is not None
    run_id = answer.header("x-run-id")
    assert run_id
    return run_id, *entry.reply(body, entry.read(answer))


ASKING = [entry for entry in HTTP.values() if entry.reply is not None]


async def test_another_user_finds_nothing(guarded: Server) -> None:
    for entry in ASKING:
        session = fresh()
        run_id, path, reply = await ask(guarded, entry, session, ANN)
        # An answer of another, by every protocol that names the run, and by the routes of runs.
        for user, status in ((BOB, 404), ({}, 401)):
            stolen = await guarded.call("POST", path, reply, headers={**entry.headers, **user})
            assert stolen.status in (status, 400) or entry.path == "/a2a", stolen
            assert "approved" not in stolen.body.decode(), stolen
            for method, route in ROUTES:
                body = {"content": "yes"} if route.endswith("/input") else None
                answer = await guarded.call(
                    method, route.format(run_id), body, headers={"A2A-Version": "1.0", **user}
                )
                assert answer.status == status, (route, answer)
                assert session not in answer.body.decode()
        # The session of another is a session of one's own, and tells nothing of the other.
        mine = await guarded.call(
            "POST", entry.path, entry.body("whoami", session, {}), headers={**entry.headers, **BOB}
        )
        assert entry.said(entry.read(mine)) == f"bob/{session}"
        assert (await guarded.call("GET", f"/runs/{run_id}", headers=ANN)).json()["phase"] == "running"
        answered = await guarded.call("POST", path, reply, headers={**entry.headers, **ANN})
        assert entry.said(entry.read(answered)).endswith("approved: True")
    guarded.close()


ROUTES = [
    ("GET", "/runs/{}"),
    ("GET", "/runs/{}/stream"),
    ("GET", "/runs/{}/tree"),
    ("GET", "/runs/{}/wait"),
    ("POST", "/runs/{}/cancel"),
    ("POST", "/runs/{}/input"),
    ("GET", "/process/task/{}"),
    ("POST", "/process/task/{}/cancel"),
    ("GET", "/v1/responses/resp_{}"),
    ("GET", "/v1/responses/resp_{}?stream=true"),
    ("POST", "/v1/responses/resp_{}/cancel"),
    ("GET", "/tasks/{}"),
    ("POST", "/tasks/{}:cancel"),
    ("GET", "/tasks/{}:subscribe"),
    ("GET", "/tasks/{}/pushNotificationConfigs"),
]
"""Routes that name a run, by their methods."""


@pytest.mark.parametrize("entry", ASKING, ids=[entry.path for entry in ASKING])
async def test_two_answers_at_once(server: Server, entry: Entry) -> None:
    before = len(server.marks)
    run_id, path, reply = await ask(server, entry, fresh(), {})
    answers: list[Answer] = []

    async def send() -> None:
        answers.append(await server.call("POST", path, reply, headers=dict(entry.headers)))

    with server.deadline(15, "answers"):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(send)
    heard = [answer for answer in answers if b"approved: True" in answer.body.replace(b'"approved: ", "', b"")]
    assert heard, answers
    assert all(answer.status < 500 for answer in answers), answers
    assert (await record_of(server, run_id))[:2] == ("FINISHED", "returned")
    assert server.marks[before:] == ["begin approve", "end approve"]
    # After the end there is no question. The answer starts no other run of it.
    late = await server.call("POST", path, reply, headers=dict(entry.headers))
    assert late.status < 500, late
    assert server.marks[before:] == ["begin approve", "end approve"]


@each_http
async def test_a_storm_of_clients_that_hang_up(server: Server, entry: Entry) -> None:
    """Half of them before they have read the head of the answer."""
    before = len(server.marks)

    async def visit(number: int) -> None:
        async with server.connect() as client:
            body = entry.body("wait", fresh(), {"on_disconnect": "cancel"} if entry.leaving_stops else {})
            await client.send("POST", entry.path, body, headers=dict(entry.headers))
            if number % 2:
                await client.head()
            client.reset()

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(visit, number)
    await begun(server, before)
    if not entry.leaving_stops:
        # Those that came with a head have begun; the others may have, or not.
        await server.wait_until(lambda: server.marks[before:].count("begin wait") >= 10, "10 runs")
        while sessions := await sessions_of(server):
            for session in sessions:
                await server.stop(session_id=session, wait=True)

    def quiet() -> bool:
        marks = server.marks[before:]
        return marks.count("begin wait") == marks.count("end wait") == marks.count("cancelled wait")

    await server.wait_until(quiet, "end of all runs")


async def sessions_of(server: Server) -> list[str]:
    listed = await server.call(
        "GET", "/tasks?pageSize=100&status=TASK_STATE_WORKING", headers={"A2A-Version": "1.0"}
    )
    return [task["contextId"] for task in listed.json()["tasks"]]
