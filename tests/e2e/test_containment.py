"""Code of every kind, in every place that users write code for: it may end its own request, run or task only."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed

from .harness import Server, fresh, output_text, say
from .sockets import connect

AGENT = "harmful"
OPTIONS = {"cleanup_budget": 2.0}
ALLOWED_LOG = r"(?s).*"
"""Each failure is logged with its traceback; what must not be there is asserted below."""

FATAL = re.compile(r"TrioInternalError|internal error in Trio|without Lifespan support|The server stops")

RAISES = [
    "exit",
    "argparse",
    "interrupt",
    "generator exit",
    "odd",
    "stop iteration",
    "thread",
    "odd in nursery",
    "mute",
    "mute in nursery",
    "mute beside nursery",
    "mute group",
    "surrogate",
    "flaky",
    "flaky in nursery",
    "nameless",
    "name of a task",
    "huge",
    "break in a time-out",
    "nursery",
    "scope",
    "parent",
    "kept",
    "kept in a group",
]
GOES_ON = [
    "break",
    "anext",
    "break of a timed one",
    "break in a nursery's task",
    "break in a thread's call",
    "break in a plain thread's call",
    "many",
]
KINDS = [*RAISES, *GOES_ON]

Deed = Callable[[Server, str], Awaitable[bool]]
"""Has the server do something, and tells whether it went on."""


async def query(server: Server, kind: str, where: str = "") -> bool:
    async with server.chat(kind, where=where, session_id=fresh()) as chat:
        end = await chat.finish()
    if end["status"] == "completed":
        return True
    assert (end["status"], end["error"]["code"]) == ("failed", "exception")
    return False


def in_run(where: str) -> Deed:
    async def deed(server: Server, kind: str) -> bool:
        return await query(server, kind, where)

    return deed


def request(method: str, path: str, **headers: str) -> Deed:
    """A request whose answer is whole if the code went on, and else says that something is wrong."""

    async def deed(server: Server, kind: str) -> bool:
        fields = {name.replace("_", "-"): value.format(kind=kind) for name, value in headers.items()}
        answer = await server.call(method, path.format(kind=kind.replace(" ", "%20")), headers=fields)
        if answer.status == 200:
            return b'"error"' not in answer.body
        assert answer.status in (401, 403, 404, 500), answer
        assert b"Traceback" not in answer.body
        # An ASGI middleware stands before the app: the server answers for it, without a body.
        assert answer.body in (b"", b"handled") or answer.json()["code"]
        return False

    return deed


async def plain_stream(server: Server, kind: str) -> bool:
    """A native stream that fails half-way is cut, as the client sees."""
    async with server.connect() as client:
        await client.send("GET", f"/plain-stream?kind={kind.replace(' ', '%20')}")
        head = await client.head()
        assert head.status == 200
        body = b""
        try:
            while piece := await client.data():
                body += piece
        except Exception:
            return False
    return body.endswith(b"went on")


async def task(server: Server, kind: str, path: str = "/task") -> bool:
    answer = await server.call("POST", path, {"kind": kind})
    assert answer.status == 202
    with server.deadline(10, "end of a task"):
        while True:
            record = await server.get(f"{path}/{answer.json()['task_id']}")
            if record["status"] in ("finished", "failed", "cancelled"):
                return bool(record["status"] == "finished")
            await trio.sleep(0.02)


async def socket(server: Server, kind: str) -> bool:
    async with connect(server, path="/socket", ready=False) as socket:
        await socket.connection.send_message(kind)
        with suppress(ConnectionClosed):
            assert await socket.connection.get_message() == "went on"
        code, _ = await socket.wait_closed()
    assert code in (1000, 1011)
    return code == 1000


async def authorized(server: Server, kind: str) -> bool:
    body = {"input": say(), "session_id": f"oddly {kind}", "stream": False}
    answer = await server.call("POST", "/process", body)
    assert answer.status in (200, 403), answer
    return answer.status == 200


PLACES: dict[str, Deed] = {
    "query": query,
    "child": in_run("child"),
    "nursery in a query": in_run("nursery"),
    "exit callback": in_run("exit"),
    "endpoint": request("POST", "/function?kind={kind}"),
    "endpoint generator": request("POST", "/generator?kind={kind}"),
    "sync endpoint": request("POST", "/sync-function?kind={kind}"),
    "sync endpoint generator": request("POST", "/sync-generator?kind={kind}"),
    "task": task,
    "native route": request("GET", "/route?kind={kind}"),
    "native stream": plain_stream,
    "before_request": request("GET", "/health", x_before="{kind}"),
    "middleware": request("GET", "/health", x_middleware="{kind}"),
    "ASGI middleware": request("GET", "/health", x_layer="{kind}"),
    "assigned ASGI middleware": request("GET", "/health", x_assigned="{kind}"),
    "error handler": request("GET", "/error-handler?kind={kind}"),
    "teardown": request("GET", "/health", x_teardown="{kind}"),
    "authenticate": request("GET", "/runs", x_authenticate="{kind}"),
    "authorize": authorized,
    "WebSocket view": socket,
}


@pytest.mark.parametrize("place", PLACES)
async def test_it_ends_its_own_and_nothing_else(server: Server, place: str) -> None:
    went_on: dict[str, bool] = {}
    done = trio.Event()
    ends: list[dict[str, Any]] = []

    async def bystand() -> None:
        while not done.is_set():
            async with server.chat(None, session_id=fresh(), pace=0.2) as chat:
                ends.append(await chat.finish())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bystand)
        for _ in range(3 if place == "query" else 1):
            for kind in KINDS:
                went_on[kind] = await PLACES[place](server, kind)
                assert (await server.call("GET", "/readiness")).status == 200
        done.set()
    assert {end["status"] for end in ends} == {"completed"}
    assert {output_text(end) for end in ends} == {"I am fine"}
    if place not in ("error handler", "sync endpoint", "sync endpoint generator"):
        assert [kind for kind in GOES_ON if not went_on[kind]] == []
    if place not in ("teardown", "native stream", "ASGI middleware", "assigned ASGI middleware"):
        # In a nursery of its own, code may cancel that.
        allowed = {"parent", "kept"} if place == "nursery in a query" else set()
        assert [kind for kind in RAISES if went_on[kind] and kind not in allowed] == []
    assert not FATAL.search(server.log)


async def test_a_result_that_cannot_be_read_is_its_tasks_own(server: Server) -> None:
    assert not await task(server, "", "/task-result")
    assert await query(server, "break")


async def test_the_log_says_what_and_where(server: Server) -> None:
    before = len(server.log)
    await query(server, "exit")
    await query(server, "break in a time-out")
    log = server.log[before:]
    assert "SystemExit" in log
    assert "harmful.py" in log
    assert "aclosing" in log
    assert "ticks" in log


@pytest.mark.parametrize("way", ["run", "hypercorn"])
@pytest.mark.parametrize("where", ["BEFORE_START", "IN_LIFESPAN", "background"])
@pytest.mark.parametrize("kind", ["exit", "interrupt", "odd", "mute", "mute group"])
async def test_what_ends_the_app_ends_the_process_in_order(start, way: str, where: str, kind: str) -> None:
    """In a hook before the start, a task of the lifespan, or a background task there is nothing else to end."""
    server = start("harmful", way, ready=where == "background", env={} if where == "background" else {where: kind})
    if where == "background":
        async with server.chat(None, session_id=fresh(), pace=0.1) as chat:
            await chat.started()
            await server.call("POST", "/background", {"kind": kind})
            assert (await chat.finish())["status"] in ("completed", "canceled")
    code = await server.wait_exit(20)
    if way == "run":
        assert code == 1
    assert "TrioInternalError" not in server.log
    assert {"exit": "SystemExit", "interrupt": "KeyboardInterrupt", "odd": "Odd"}.get(kind, "Mute") in server.log


async def test_the_ends_are_in_order(start) -> None:
    """Generators that were left in hooks and in the lifespan are closed there: the server ends as ever."""
    for way in ("run", "hypercorn"):
        server = start("harmful", way)
        assert await query(server, "break")
        server.close(allowed="")


@pytest.mark.parametrize("way", ["run", "hypercorn"])
async def test_a_generator_that_a_lifespan_cannot_close_is_named_at_the_start(start, way: str) -> None:
    server = start("harmful", way, ready=False, env={"IN_LIFESPAN": "break before a nursery"})
    await server.wait_exit(20)
    assert "The start-up failed: LeftOpen: Async generator ticks" in server.log
    assert "aclosing" in server.log
