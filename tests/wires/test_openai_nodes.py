"""OpenAI's protocols with two nodes over one Redis: every request may reach any of them."""

from __future__ import annotations

import json
from typing import Any

from trio_agentapp.testing.redis_server import RedisServer

from ..e2e.harness import Server
from .frames import Stream, chat, events_of, respond, text_of
from .test_responses import approval, check_assembled, check_numbers, kinds

TIMINGS = {
    "lease": 2.5,
    "heartbeat": 0.4,
    "cutoff": 1.4,
    "offline_cleanup": 0.5,
    "margin": 0.5,
    "call_timeout": 0.6,
}


STARTING = ".*Redis has just started.*"


async def test_two_nodes(start: Any) -> None:
    """In one test, since a Redis that has just started takes no runs for a lease."""
    async with RedisServer("valkey") as redis:
        env = {
            "AGENTAPP_INTERRUPT_REDIS_URL": redis.url,
            "AGENTAPP_STATE_URL": redis.url,
            "AGENTAPP_EVENT_STORE": "redis",
        }
        one, other = [start("assistant", env=env, ready=False, timings=TIMINGS) for _ in range(2)]
        one.wait_ready()
        other.wait_ready()
        await a_background_response_is_read_and_cancelled_elsewhere(one, other)
        await a_conversation_goes_on_elsewhere(one, other)
        await a_question_is_answered_elsewhere(one, other)
        await the_question_of_a_completion_is_answered_elsewhere(one, other)
        one.close(allowed=STARTING)
        other.close(allowed=STARTING)


async def a_background_response_is_read_and_cancelled_elsewhere(one: Server, other: Server) -> None:
    begun = await respond(one, "endless", background=True)
    path = f"/v1/responses/{begun['id']}"
    async with one.connect() as client, other.connect() as far:
        await client.send("GET", f"{path}?stream=true")
        near_events = list(await Stream(client).read(8))
        await far.send("GET", f"{path}?stream=true")
        # What the request asked for is repeated only by the node that has taken it, in the first two events.
        assert (await Stream(far).read(8))[2:8] == near_events[2:8]
    assert (await other.get(path))["status"] == "in_progress"
    cancelled = (await other.call("POST", f"{path}/cancel", b"")).json()
    assert cancelled["status"] == "cancelled"
    assert text_of(cancelled).startswith("word0 ")
    assert (await one.get(path))["output"] == cancelled["output"]
    resumed = events_of((await other.call("GET", f"{path}?stream=true&starting_after=7")).body)
    check_numbers(near_events[:8] + resumed)


async def a_conversation_goes_on_elsewhere(one: Server, other: Server) -> None:
    first = await respond(one, "hello")
    second = await respond(other, "history", previous_response_id=first["id"])
    assert text_of(second) == "user: hello | assistant: word0 word1 word2 "


async def a_question_is_answered_elsewhere(one: Server, other: Server) -> None:
    first = (await respond(one, "name", stream=True))[-1]["response"]
    assert (await other.get(f"/v1/responses/{first['id']}"))["output"] == first["output"]
    question = first["output"][-1]["id"]
    second = await respond(other, approval(question, reason="Ann"), previous_response_id=first["id"], stream=True)
    check_numbers(second)
    check_assembled(second)
    assert json.loads(second[-1]["response"]["output"][-1]["arguments"])["question"] == "Really Ann?"
    third = await respond(other, "yes", previous_response_id=second[-1]["response"]["id"])
    assert text_of(third) == "Hello Ann, True."
    for server in (one, other):
        kept = events_of((await server.call("GET", f"/v1/responses/{first['id']}.2?stream=true")).body)
        assert kinds(kept) == kinds(second)
        assert (await server.get(f"/v1/responses/{first['id']}.3"))["output"] == third["output"]


async def the_question_of_a_completion_is_answered_elsewhere(one: Server, other: Server) -> None:
    asked = [{"role": "user", "content": "approve"}]
    first = (await chat(one, asked))["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "yes"}
    second = await chat(other, [*asked, first, result])
    assert second["choices"][0]["message"]["content"] == "Deleted."
