"""`/ws` where something is to be proved, where there is too much, and where one of both sides leaves."""

from __future__ import annotations

import secrets
from collections import Counter
from contextlib import AsyncExitStack

import pytest
import trio

from trio_agentapp.client import AgentClient
from trio_agentapp.errors import Unauthorized
from trio_agentapp.testing.faulty_proxy import FaultyProxy

from .conftest import Start
from .harness import TIMEOUT, WAYS, Client, Server, check_events, fresh, output_text
from .sockets import connect


@pytest.mark.parametrize("way", WAYS)
async def test_too_many_runs_close_their_socket_only(start: Start, way: str) -> None:
    server = start(way=way, max_runs_per_socket=3)
    async with connect(server) as other, connect(server) as socket:
        await other.start("a", "recite", times=10, session_id=fresh())
        for number in range(4):
            await socket.start(str(number), "endless", cleanup=0, session_id=fresh())
        assert await socket.wait_closed() == (4429, "more than 3 runs on one socket")
        assert (await other.wait_for("a", "done"))["state"] == "FINISHED"
    server.close()


async def test_a_draining_node_lets_runs_finish_and_closes_with_1001(start: Start) -> None:
    server = start(drain_timeout=20)
    async with connect(server) as idle, connect(server) as socket:
        await socket.start("a", "gated", session_id=fresh())
        await socket.wait_for("a", "started")
        server.send_signal()
        assert await idle.wait_closed() == (1001, "this node is shutting down")
        await socket.start("b", session_id=fresh())
        error = (await socket.wait_for("b", "error"))["error"]
        assert (error["code"], error["status"], error["retryable"]) == ("draining", 503, True)
        await socket.send("stop", id="a")
        assert (await socket.wait_for("a", "done"))["state"] == "STOPPED"
        check_events(socket.events("a"))
        assert await socket.wait_closed() == (1001, "this node is shutting down")
    assert await server.wait_exit(10) == 0
    server.assert_clean()


async def test_the_bare_command_leaves_in_good_order(start: Start) -> None:
    """Hypercorn does not report the shutdown to the app; after its graceful time-out it closes the sockets."""
    server = start(way="hypercorn", flags=("--graceful-timeout", "1"))
    async with connect(server) as idle, connect(server) as socket:
        await socket.start("a", "endless", cleanup=0.3, session_id=fresh())
        await socket.wait_said("a")
        server.send_signal()
        assert await idle.wait_closed() == (1001, "this node is shutting down")
        assert (await socket.wait_for("a", "done"))["state"] == "STOPPED"
        check_events(socket.events("a"))
        assert socket.events("a")[-1]["error"] == {"code": "stopped", "message": "shutdown"}
        assert await socket.wait_closed() == (1001, "this node is shutting down")
    assert await server.wait_exit(10) == 0
    server.assert_clean()


async def upgrade(client: Client) -> None:
    key = secrets.token_hex(11)
    await client.stream.send_all(
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b==\r\n\r\n" % key.encode()
    )
    assert (await client.stream.receive_some(65536)).startswith(b"HTTP/1.1 101")


@pytest.mark.parametrize("way", WAYS)
async def test_a_peer_that_does_not_read_is_cut(start: Start, way: str) -> None:
    server = start(way=way, send_timeout=0.5)
    session_id = fresh()
    async with server.connect() as client:
        await upgrade(client)
        async with AsyncExitStack() as stack:
            socket = await stack.enter_async_context(connect(server))
            body = {"input": "Go", "do": "burst", "times": 10**6, "size": 1000, "session_id": session_id}
            await client.stream.send_all(_masked({"type": "start", "id": "a", "request": body}))
            await server.wait_mark(f"begin {session_id}")
            await server.wait_mark(f"end {session_id}")
            # Others are served meanwhile, and afterwards.
            await socket.start("b", session_id=fresh())
            await socket.wait_for("b", "done")
    server.close(allowed=r".*its peer has read nothing for.*")


async def test_a_peer_that_has_vanished_is_noticed(start: Start) -> None:
    """No packet tells of it: its pongs stay away. One that answers is left in peace, however quiet it is."""
    server = start(ping_interval=0.1)
    async with FaultyProxy.open(server.port) as proxy, connect(server) as quiet:
        async with connect(server, port=proxy.port) as socket:
            ids = {socket: fresh(), quiet: fresh()}
            for one, session_id in ids.items():
                await one.start("a", "gated", session_id=session_id)
                await one.wait_for("a", "started")
            proxy.blackhole()
            await server.wait_mark(f"end {ids[socket]}")
            proxy.cut()
        await server.call("POST", f"/test/gate/{ids[quiet]}")
        assert (await quiet.wait_for("a", "done"))["state"] == "FINISHED"
    server.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_peer_that_detaches_and_hangs_up_while_it_is_written_to_leaves_nothing(
    start: Start, way: str
) -> None:
    """The write that finds the peer gone belongs to a run that is detached by then, and is cancelled."""
    server = start(way=way)
    before = Counter((await server.get("/test/tasks"))["tasks"])

    async def come_and_go(number: int) -> None:
        session_id = fresh()
        async with server.connect() as client:
            await upgrade(client)
            body = {"input": "Go", "do": "burst", "times": 10**6, "size": 1000, "session_id": session_id}
            await client.stream.send_all(_masked({"type": "start", "id": "a", "request": body}))
            await server.wait_mark(f"begin {session_id}")
            # The orders of these three differ from socket to socket: none may leave anything.
            await trio.sleep(0.02 * (number % 10))
            await client.stream.send_all(_masked({"type": "detach", "id": "a"}))
            await trio.sleep(0.05 * (number // 10))
            client.reset()
        await server.wait_mark(f"end {session_id}")

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(come_and_go, number)

    with server.deadline(TIMEOUT, "end of all that served these sockets"):
        while True:
            now = await server.get("/test/tasks")
            if not Counter(now["tasks"]) - before and not now["readers"]:
                break
            await trio.sleep(0.05)
    server.close()


def _masked(message: object) -> bytes:
    import json

    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import TextMessage

    return Connection(ConnectionType.CLIENT).send(TextMessage(data=json.dumps(message)))


# Identity.


@pytest.fixture
def guarded(start: Start) -> Server:
    return start("guarded", read_timeout=0.5)


async def test_a_token_is_proved_by_header_or_init(guarded: Server) -> None:
    async with connect(guarded, headers={"Authorization": "Bearer u1"}) as socket:
        # It is not needed here, so it changes nothing, and a client need not know.
        await socket.send("init", token="u2")
        await socket.start("a", session_id="s1")
        await socket.wait_for("a", "done")
        assert socket.deltas("a") == ["u1"]
        assert socket.frames[None] == [{"type": "ready"}], "an error"
    async with connect(guarded, ready=False) as socket:
        await socket.send("init", token="u2")
        assert await socket.receive() == {"type": "ready"}
        await socket.start("a", session_id="s1")
        await socket.wait_for("a", "done")
        assert socket.deltas("a") == ["u2"]
        await socket.start("b", session_id="s1", user_id="u1")
        assert (await socket.wait_for("b", "error"))["error"]["code"] == "forbidden"
    async with connect(guarded, headers={"Cookie": "user=u3"}, ready=False) as socket:
        # What proves it may be a cookie: then the first message need not be an init.
        await socket.start("a", session_id="s1")
        await socket.wait_for("a", "done")
        assert socket.deltas("a") == ["u3"]
    guarded.close()


async def test_the_client_authenticates_by_any_header(guarded: Server) -> None:
    """It waits for `ready` before its first run, and the server for a message."""
    url = f"http://127.0.0.1:{guarded.port}"
    async with AgentClient(url, transport="websocket", headers={"Cookie": "user=u3"}) as client:
        async with client.run("hi") as events:
            async for _ in events:
                pass
    assert output_text(events.response) == "u3"
    async with AgentClient(url, transport="websocket") as client:
        with pytest.raises(Unauthorized):
            async with client.run("hi"):
                pass
    guarded.close()


async def test_what_proves_nothing_is_refused(guarded: Server) -> None:
    async with connect(guarded, headers={"Authorization": "Bearer nobody"}, ready=False) as socket:
        assert (await socket.wait_closed())[0] == 4401
    for token in ("nobody", "u1\r\nX-User: u1", "u1\0", "\u043a\u043b\u044e\u0447"):
        async with connect(guarded, ready=False) as socket:
            await socket.send("init", token=token)
            assert (await socket.wait_closed())[0] == 4401
    assert "a WebSocket failed" not in guarded.log
    async with connect(guarded, ready=False) as socket:
        await socket.start("a")
        assert (await socket.wait_closed())[0] == 4401
    async with connect(guarded, ready=False) as socket:
        with trio.fail_after(TIMEOUT):
            assert await socket.wait_closed() == (4408, "no init came in time")
    guarded.close()


async def test_another_users_run_is_as_unknown_as_no_run(guarded: Server) -> None:
    async with (
        connect(guarded, headers={"Authorization": "Bearer u1"}) as owner,
        connect(guarded, headers={"Authorization": "Bearer u2"}) as other,
    ):
        await owner.start("a", session_id="s1", forever=True)
        run_id = (await owner.wait_for("a", "started"))["run_id"]
        problems = []
        for id, wanted in (("a", run_id), ("b", "no-such-run")):
            await other.send("attach", id=id, run_id=wanted)
            problem = (await other.wait_for(id, "error"))["error"]
            del problem["request_id"]
            problems.append(problem)
        assert problems[0] == problems[1]
        assert problems[0]["code"] == "run_not_found"
    guarded.close()


async def test_a_view_of_ones_own_that_fails_is_no_normal_end(guarded: Server) -> None:
    for path, code in (("/own/broken", 1011), ("/own/fine", 1000)):
        async with connect(guarded, path=path, ready=False) as socket:
            assert await socket.connection.get_message() == "hello"
            assert (await socket.wait_closed())[0] == code
    guarded.kill()
