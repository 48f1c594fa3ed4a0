"""AgentClient when connections fail: each event once and in order, and never two runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
import trio

from trio_agentapp import AgentClient, errors
from trio_agentapp.client import EventStream, Retries
from trio_agentapp.testing.faulty_proxy import FaultyProxy

from .conftest import Start
from .harness import Server, check_events, free_port, fresh

Transport = Literal["sse", "websocket"]
QUICK = Retries(attempts=30, first_delay=0.01, last_delay=0.1)
STAYS: dict[str, Any] = {"on_disconnect": {"cancel_after": 30}}


@pytest.fixture(params=["sse", "websocket"])
def transport(request: pytest.FixtureRequest) -> Transport:
    kind: Transport = request.param
    return kind


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = Server("friday", "run", tmp_path_factory.mktemp("agent"), {})
    server.wait_ready()
    yield server
    server.close()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy.open(server.port) as proxy:
        yield proxy


def near(proxy: FaultyProxy) -> str:
    return f"http://127.0.0.1:{proxy.port}"


def begins(server: Server, session_id: str) -> int:
    """How often the handler was entered for a session."""
    return server.marks.count(f"begin {session_id}")


async def test_cuts_are_not_noticed(server: Server, proxy: FaultyProxy, transport: Transport) -> None:
    session_id = fresh()
    async with AgentClient(near(proxy), transport=transport, retries=QUICK) as client:
        request = {"input": "Go", "do": "recite", "times": 40, "session_id": session_id, **STAYS}
        async with client.run(request) as events:
            seen = []
            async for event in events:
                seen.append(event)
                if len(seen) in (3, 10, 20, 30):
                    proxy.cut()
    check_events(seen)
    said = [event["text"] for event in seen if event["object"] == "content" and event["delta"]]
    assert said == [f"{session_id}/{events.run_id}/{n} " for n in range(40)]
    assert events.text == "".join(said)
    assert proxy.connections >= 5
    assert begins(server, session_id) == 1


async def test_many_runs_survive_the_cut_of_their_socket(server: Server, proxy: FaultyProxy) -> None:
    async def chat(client: AgentClient, session_id: str, ready: list[EventStream]) -> None:
        request = {"input": "Go", "do": "recite", "times": 30, "period": 0.05, **STAYS}
        async with client.run(request, session_id=session_id) as events:
            seen = []
            async for event in events:
                seen.append(event)
                if len(seen) == 4:
                    ready.append(events)
                    if len(ready) == 30:
                        proxy.cut()
        check_events(seen)
        assert events.text == "".join(f"{session_id}/{events.run_id}/{n} " for n in range(30))

    ready: list[EventStream] = []
    async with AgentClient(near(proxy), transport="websocket", retries=QUICK) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(chat, client, fresh(), ready)
    assert proxy.connections == 2


async def test_a_start_whose_answer_was_lost_is_found_again(
    server: Server, proxy: FaultyProxy, transport: Transport
) -> None:
    session_id = fresh()
    async with AgentClient(near(proxy), transport=transport, retries=QUICK) as client:
        async with client.run("warm up"):
            pass

        async def lose_it() -> None:
            await server.wait_mark(f"begin {session_id}")
            proxy.cut()
            proxy.restore()

        proxy.hold_replies()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose_it)
            request = {"input": "Go", "do": "recite", "times": 10, **STAYS}
            async with client.run(request, session_id=session_id) as events:
                seen = [event async for event in events]
    check_events(seen)
    assert begins(server, session_id) == 1


async def test_a_start_that_never_arrived_is_made_again(
    server: Server, proxy: FaultyProxy, transport: Transport
) -> None:
    session_id = fresh()
    async with AgentClient(near(proxy), transport=transport, retries=QUICK) as client:
        async with client.run("warm up"):
            pass

        async def lose_it() -> None:
            await trio.sleep(0.2)
            proxy.cut()
            proxy.restore()

        proxy.blackhole()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose_it)
            async with client.run("Hello", session_id=session_id) as events:
                check_events([event async for event in events])
    assert begins(server, session_id) == 1


async def test_silence_counts_as_a_cut(server: Server, proxy: FaultyProxy, transport: Transport) -> None:
    session_id = fresh()
    times: dict[str, Any] = {"retries": QUICK, "silence": 0.5, "connect_timeout": 0.5}
    async with FaultyProxy.open(server.port) as other:
        async with AgentClient([near(proxy), near(other)], transport=transport, **times) as client:
            request = {"input": "Go", "do": "recite", "times": 40, "session_id": session_id, **STAYS}
            async with client.run(request) as events:
                seen = [await anext(events) for _ in range(5)]
                assert other.connections == 0
                proxy.blackhole()
                with server.deadline(30, "end of a stream that went silent"):
                    seen += [event async for event in events]
            assert other.connections == 1
    check_events(seen)
    assert begins(server, session_id) == 1


async def test_a_server_that_stays_away(server: Server, proxy: FaultyProxy, transport: Transport) -> None:
    few = Retries(attempts=3, first_delay=0.01)
    async with AgentClient(near(proxy), transport=transport, retries=few) as client:
        async with client.run({"input": "Go", "do": "endless", "cleanup": 0}) as events:
            await anext(events)
            proxy.refuse()
            with pytest.raises(errors.ConnectionLost, match=r"127\.0\.0\.1:\d+: .* \(3 attempts\)"):
                await events.wait()
            proxy.restore()


async def test_a_run_that_died_with_its_server(start: Start, transport: Transport) -> None:
    port = free_port()
    first = start(env={"PORT": str(port)})
    url = f"http://127.0.0.1:{port}"
    async with AgentClient(url, transport=transport, retries=QUICK) as client:
        async with client.run({"input": "Go", "do": "endless"}) as events:
            await anext(events)
            first.kill()
            start(env={"PORT": str(port)})
            with pytest.raises(errors.RunNotFound):
                await events.wait()
        # The client goes on to be of use.
        async with client.run("Hello") as events:
            assert (await events.wait())["status"] == "completed"


async def test_a_stop_finds_its_run_after_a_cut(server: Server, proxy: FaultyProxy, transport: Transport) -> None:
    async with AgentClient(near(proxy), transport=transport, retries=QUICK) as client:
        async with client.run({"input": "Go", "do": "endless", "cleanup": 0.1, **STAYS}) as events:
            await anext(events)
            proxy.cut()
            receipt = await events.stop(wait=True)
            assert (receipt.stopped, receipt.run_id) == (True, events.run_id)
            assert (await events.wait())["status"] == "canceled"


# Attaching.


async def test_attach_from_any_place(server: Server, transport: Transport) -> None:
    async with AgentClient(f"http://127.0.0.1:{server.port}", transport=transport) as client:
        async with client.run({"input": "Go", "do": "recite", "times": 5}) as events:
            run_id = events.run_id
            await anext(events)
            async with client.attach(run_id) as late:
                whole = [event async for event in late]
            check_events(whole)
            assert (late.run_id, late.text) == (run_id, whole[-1]["output"][0]["content"][0]["text"])
            assert [await anext(events), *[event async for event in events]] == whole[1:]
        for after in (-1, 3, len(whole) - 2):
            async with client.attach(run_id, after) as again:
                assert [event async for event in again] == whole[after + 1 :]
        async with client.attach(run_id, len(whole) - 1) as nothing:
            assert [event async for event in nothing] == []
            assert nothing.response is None
        with pytest.raises(errors.RunNotFound):
            async with client.attach("no-such-run"):
                pass


async def test_a_run_is_stopped_by_whoever_attached(server: Server, transport: Transport) -> None:
    async with AgentClient(f"http://127.0.0.1:{server.port}", transport=transport) as client:
        request = {"input": "Go", "do": "endless", "cleanup": 0, "user_id": "u1", "session_id": fresh()}
        async with client.run(request) as events, client.attach(events.run_id) as late:
            await anext(late)
            receipt = await late.stop(wait=True)
            assert (receipt.stopped, receipt.run_id) == (True, events.run_id)
            for stream in (events, late):
                assert (await stream.wait())["status"] == "canceled"
            assert not (await late.stop()).accepted


async def test_inputs_reach_their_run(server: Server, transport: Transport) -> None:
    async with AgentClient(f"http://127.0.0.1:{server.port}", transport=transport) as client:
        async with client.run({"input": "Go", "do": "listen"}) as events:
            await anext(events)
            await events.send_input("one ")
            await client.send_input(events.run_id, {"role": "user", "content": "two "})
            assert (await events.wait())["status"] == "completed"
        assert events.text == "one two "
        with pytest.raises(errors.RunEnded):
            await client.send_input(events.run_id, "three")


async def test_an_outliving_run_is_waited_for(server: Server, transport: Transport) -> None:
    async with AgentClient(f"http://127.0.0.1:{server.port}", transport=transport, silence=0.3) as client:
        request = {"input": "Go", "do": "recite", "times": 25, "on_disconnect": "continue"}
        async with client.run(request, user_id="u1") as events:
            await anext(events)
        end = await client.wait(events.run_id, user_id="u1")
        assert (end["status"], end["id"]) == ("completed", f"response_{events.run_id}")


async def test_a_reader_that_lags_holds_up_nobody(server: Server) -> None:
    """On one socket: the run that is not read moves to its own, and loses nothing by it."""
    async with AgentClient(f"http://127.0.0.1:{server.port}", transport="websocket") as client:
        async with client.run({"input": "Go", "do": "burst", "times": 12_000, "size": 50}) as lagging:
            await anext(lagging)
            async with client.run({"input": "Go", "do": "recite", "times": 10}) as events:
                assert (await events.wait())["status"] == "completed"
            numbers = [event["sequence_number"] async for event in lagging]
    assert numbers == list(range(1, numbers[-1] + 1))
    assert len(lagging.text) == 12_000 * 50


async def test_a_ping_that_crosses_the_close(start: Start) -> None:
    server = start(ping_interval=0.003)
    for _ in range(10):
        async with AgentClient(f"http://127.0.0.1:{server.port}", transport="websocket") as client:
            async with client.run("Hello") as events:
                assert (await events.wait())["status"] == "completed"
    server.close()
