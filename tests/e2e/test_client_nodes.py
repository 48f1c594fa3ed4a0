"""AgentClient and several nodes over one Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
import trio

from trio_agentapp import AgentClient, errors
from trio_agentapp.client import EventStream, Retries
from trio_agentapp.testing.faulty_proxy import FaultyProxy
from trio_agentapp.testing.redis_server import RedisServer

from .conftest import Start
from .harness import Server, check_events, fresh, say

QUICK = Retries(attempts=100, first_delay=0.02, last_delay=0.1)
ANY_WARNING = '.*"level":"(warning|error)".*'
TIMINGS = {
    "lease": 2.5,
    "heartbeat": 0.4,
    "cutoff": 1.4,
    "offline_cleanup": 0.5,
    "margin": 0.5,
    "call_timeout": 0.6,
    "reaper": 0.5,
}


@pytest.fixture
async def redis() -> AsyncIterator[str]:
    async with RedisServer("valkey") as server:
        yield server.url


def two(start: Start, redis: str, events: str) -> tuple[Server, Server]:
    options: dict[str, Any] = {"interrupt_redis_url": redis, "event_store": events, "timings": TIMINGS}
    servers = [start(ready=False, **options) for _ in range(2)]
    for server in servers:
        server.wait_ready()
    return servers[0], servers[1]


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


async def test_several_nodes(start: Start, redis: str) -> None:
    """In one test, since a Redis that has just started takes no runs for a lease."""
    first, second = two(start, redis, "redis")
    await it_moves(first, second, "sse")
    await it_moves(first, second, "websocket")
    await it_is_stopped_through_the_other(first, second)
    await its_end_is_told_when_its_node_is_killed(first, second)
    assert second.marks == []
    second.close(allowed=ANY_WARNING)
    await questions_are_listed_and_answered_anywhere(*two(start, redis, "local"))
    await events_are_only_on_an_unreachable_node(*two(start, redis, "local"))


async def it_moves(first: Server, second: Server, transport: Literal["sse", "websocket"]) -> None:
    async with FaultyProxy.open(first.port) as proxy:
        nodes = [url(proxy.port), url(second.port)]
        async with AgentClient(nodes, transport=transport, retries=QUICK) as client:
            request = {"input": "Go", "do": "recite", "times": 25, "on_disconnect": {"cancel_after": 30}}
            async with client.run(request) as events:
                seen = [await anext(events) for _ in range(6)]
                proxy.refuse()
                seen += [event async for event in events]
    check_events(seen)
    assert len(events.text.split()) == 25


async def it_is_stopped_through_the_other(first: Server, second: Server) -> None:
    session_id = fresh()
    async with AgentClient(url(first.port)) as client, AgentClient(url(second.port)) as other:
        async with client.run({"input": "Go", "do": "endless"}, session_id=session_id, user_id="u1") as events:
            await anext(events)
            assert (await other.session(session_id, user_id="u1"))["active_run_id"] == events.run_id
            assert [run["run_id"] for run in (await other.runs(user_id="u1"))["runs"]] == [events.run_id]
            assert (await other.cancel(events.run_id, wait=True)).stopped
            assert (await events.wait())["status"] == "canceled"
            assert (await other.cancel_several([events.run_id]))[0]["state"] == "STOPPED"


async def questions_are_listed_and_answered_anywhere(first: Server, second: Server) -> None:
    async with AgentClient(url(first.port)) as client, AgentClient(url(second.port)) as other:
        user = fresh()
        async with (
            client.run({"input": "Go", "do": "ask"}, user_id=user) as events,
            client.run({"input": "Go", "do": "ask"}, user_id=user) as later,
            client.run({"input": "Go", "do": "ask"}, user_id=fresh()),
        ):
            here = await wait_for_questions(client, user, 2)
            there = await wait_for_questions(other, user, 2)
            assert there == here
            assert [each["run_id"] for each in here] == [later.run_id, events.run_id]
            assert (here[1]["name"], here[1]["question"], here[1]["schema"]) == (
                "approval",
                "Delete it?",
                {"type": "boolean"},
            )
            page = await other.questions(user_id=user, limit=1)
            assert (page["questions"], page["cursor"]) == (here[:1], later.run_id)
            page = await other.questions(user_id=user, cursor=page["cursor"])
            assert (page["questions"], page["cursor"]) == (here[1:], None)
            await other.answer(events.run_id, here[1]["id"], True, user_id=user)
            assert (await events.wait())["status"] == "completed"
            assert events.text == "approved: True"
            assert await wait_for_questions(other, user, 1) == here[:1]
            assert (await other.questions(user_id=user, session_id=events.session_id))["questions"] == []
            await later.answer(here[0]["id"], False)
            assert (await later.wait())["status"] == "completed"
            assert await wait_for_questions(other, user, 0) == []
            with pytest.raises(errors.RunEnded):
                await other.answer(events.run_id, here[1]["id"], True, user_id=user)
    for server in (first, second):
        server.close(allowed=ANY_WARNING)


async def wait_for_questions(client: AgentClient, user: str, number: int) -> list[dict[str, Any]]:
    with trio.fail_after(20):
        while len(found := (await client.questions(user_id=user))["questions"]) != number:
            await trio.sleep(0.02)
    return found


async def its_end_is_told_when_its_node_is_killed(first: Server, second: Server) -> None:
    async with AgentClient([url(first.port), url(second.port)], retries=QUICK) as client:
        async with client.run({"input": "Go", "do": "recite"}) as events:
            seen = [await anext(events) for _ in range(6)]
            first.kill()
            seen += [event async for event in events]
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert (seen[-1]["status"], seen[-1]["error"]["code"]) == ("failed", "owner_lost")


async def events_are_only_on_an_unreachable_node(first: Server, second: Server) -> None:
    async with FaultyProxy.open(first.port) as proxy:
        few = Retries(attempts=3, first_delay=0.02)
        async with AgentClient([url(proxy.port), url(second.port)], retries=few) as client:
            async with client.run({"input": "Go", "do": "recite", "on_disconnect": "continue"}) as events:
                await anext(events)
                proxy.refuse()
                with pytest.raises(errors.Elsewhere) as elsewhere:
                    await events.wait()
                assert elsewhere.value.node_id == (await client.status(events.run_id))["node"]
                assert (await client.cancel(events.run_id, wait=True)).stopped
            proxy.restore()
    first.close(allowed=ANY_WARNING)
    second.close(allowed=ANY_WARNING)


async def test_large_answers_are_read_at_another_node(start: Start, redis: str) -> None:
    """Live, after the end, and in the history; one that grows too large ends its run."""
    options: dict[str, Any] = {"interrupt_redis_url": redis, "event_store": "redis", "state_url": redis}
    first, second = start(**options), start(**options)
    for pieces, size in ((1, 3_000_000), (1, 9_000_000), (30, 1_000_000), (40, 1_000_000)):
        run, session = fresh("run"), fresh()
        fields = {"do": "bulk", "id": run, "session_id": session, "pieces": pieces, "size": size}
        answer = await first.call("POST", "/process", {"input": say(), "background": True, **fields})
        assert answer.status == 202
        async with AgentClient(url(second.port)) as client, client.attach(run) as live:
            end = await _end_of(live)
            async with client.attach(run) as afterwards:
                assert await _end_of(afterwards) == end
            assert (await second.call("GET", f"/runs/{run}/wait")).json() == end
        [_, said] = (await second.get(f"/sessions/{session}/history"))["messages"]
        whole = pieces * size <= 33_554_432
        length = pieces * size if whole else 33_000_000
        assert end["status"] == ("completed" if whole else "failed")
        assert whole or end["error"]["code"] == "answer_too_large"
        assert len(end["output"][0]["content"][0]["text"]) == length
        assert len(said["content"][0]["text"]) == length
    first.close(allowed=ANY_WARNING)
    second.close(allowed=ANY_WARNING)


async def _end_of(stream: EventStream) -> dict[str, Any]:
    while True:
        try:
            return await stream.wait()
        except errors.EventsMissed:
            continue
