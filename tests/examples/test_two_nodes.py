from __future__ import annotations

import trio

from trio_agentapp.testing.redis_server import RedisServer

PAGE = "examples/two_nodes/README.md"


async def test_a_chat_on_one_is_stopped_on_the_other(start, document) -> None:
    page = document(PAGE)
    chat, stop = page.commands("/process")[0], page.commands("/stop")[0]
    async with RedisServer("valkey") as redis:
        here, there = (start("python examples/two_nodes/app.py", REDIS_URL=redis.url) for _ in range(2))
        for node in (here, there):
            await node.wait_ready()
            # The server has just started, and the nodes say so until a lease has passed.
            with trio.fail_after(30):
                while (await node.call("curl -s http://127.0.0.1:8091/readiness"))["status"] != "healthy":
                    await trio.sleep(0.1)
        stream = here.stream(chat)
        await stream.wait_for('"text":"2 "')
        receipt = await there.call(stop)
        assert (receipt["accepted"], receipt["stopped"], receipt["state"]) == (True, True, "STOPPED")
        assert (await stream.wait_end())["status"] == "canceled"
        for node in (here, there):
            assert await node.stop() == 0
