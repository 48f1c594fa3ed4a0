"""A2A on several nodes over one Redis: a task can be read, followed, answered and canceled on any of them."""

from __future__ import annotations

import json

from trio_agentapp.testing.redis_server import RedisServer

from .a2a_client import error, result, saying, says, send, streaming, text_of
from .conftest import Start
from .harness import fresh

TIMINGS = {
    "lease": 2.5,
    "heartbeat": 0.4,
    "cutoff": 1.4,
    "offline_cleanup": 0.5,
    "margin": 0.5,
    "call_timeout": 0.6,
    "reaper": 0.5,
}
ANY_WARNING = '.*"level":"(warning|error)".*'


async def test_tasks_of_another_node(start: Start) -> None:
    """In one test, since a Redis that has just started takes no runs for a lease."""
    async with RedisServer("valkey") as redis:
        env = {
            "AGENTAPP_INTERRUPT_REDIS_URL": redis.url,
            "AGENTAPP_EVENT_STORE": "redis",
            "TIMINGS": json.dumps(TIMINGS),
        }
        servers = [start("a2a_agent", ready=False, env=env) for _ in range(2)]
        for server in servers:
            server.wait_ready()
        one, two = servers

        gate = fresh("gate")
        context = fresh("context")
        message = saying(f"gate {gate}", contextId=context)
        async with streaming(one, "SendStreamingMessage", {"message": message}) as frames:
            task = (await frames.until(lambda item: "task" in item))["task"]
            await frames.until(says("before "))
            async with streaming(two, "SubscribeToTask", {"id": task["id"]}) as others:
                assert text_of((await others.until(lambda item: "task" in item))["task"]) == "before "
                seen = await result(two, "GetTask", {"id": task["id"]})
                assert (seen["status"]["state"], text_of(seen)) == ("TASK_STATE_WORKING", "before ")
                refused = await send(two, "say no", contextId=context)
                assert refused["status"]["state"] == "TASK_STATE_REJECTED"
                (one.folder / gate).touch()
                items = await others.all()
        assert any(says("after")(item) for item in items)
        assert items[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
        ended = await result(two, "GetTask", {"id": task["id"]})
        assert text_of(ended) == "before after"
        assert [each["id"] for each in (await result(two, "ListTasks", {"contextId": context}))["tasks"]] == [
            task["id"]
        ]

        asking = await send(one, "ask")
        answered = await send(two, "green", taskId=asking["id"])
        assert text_of(answered) == "hm so green"
        for server, beginning in ((one, ["ask"]), (two, [])):
            history = (await result(server, "GetTask", {"id": asking["id"]}))["history"]
            said = [message["parts"][0]["text"] for message in history]
            assert said == [*beginning, "Which colour?", "green"]

        async with streaming(one, "SendStreamingMessage", {"message": saying("wait")}) as frames:
            task = (await frames.until(lambda item: "task" in item))["task"]
            await frames.until(says("waiting "))
            cancelled = await result(two, "CancelTask", {"id": task["id"]})
            assert cancelled["status"]["state"] == "TASK_STATE_CANCELED"
            assert "cancelled wait" in one.marks
            assert (await frames.all())[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"

        async with streaming(one, "SendStreamingMessage", {"message": saying("wait")}) as frames:
            task = (await frames.until(lambda item: "task" in item))["task"]
            await frames.until(says("waiting "))
            async with streaming(two, "SubscribeToTask", {"id": task["id"]}) as others:
                await others.until(lambda item: "task" in item)
                one.kill()
                last = (await others.all())[-1]["statusUpdate"]["status"]
            assert last["state"] == "TASK_STATE_FAILED"
            assert last["message"]["metadata"]["code"] == "owner_lost"
        gone = await result(two, "GetTask", {"id": task["id"]})
        assert (gone["status"]["state"], text_of(gone)) == ("TASK_STATE_FAILED", "waiting ")
        assert (await error(two, "CancelTask", {"id": task["id"]}))["code"] == -32002
        two.close(allowed=ANY_WARNING)
