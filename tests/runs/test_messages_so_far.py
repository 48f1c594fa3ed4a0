"""What a live run has completed until now, for those who do not watch it."""

from __future__ import annotations

from trio_agentapp import AgentApp, Message, Run
from trio_agentapp.web.identity import Caller


async def test_messages_of_a_long_run_that_have_left_the_log() -> None:
    app = AgentApp()

    @app.query()
    async def chat(run: Run):  # type: ignore[no-untyped-def]
        await run.ask("First?")
        for number in range(20_000):
            yield f"{number} "
        await run.ask("Second?")

    async with app.runtime():
        access = app._open().run_routes.access
        async with app.stream_query({"input": "x", "id": "run-long-1", "on_disconnect": "continue"}) as events:
            asked = 0
            async for event in events:
                if event.object == "message" and event.type == "mcp_approval_request" and event.content:
                    asked += 1
                    if asked == 2:
                        break
                    app._open().registry.find("run-long-1").input.give(Message(role="user", content="yes"))
            run = app._open().registry.find("run-long-1")
            assert run.log.first > 0
            kinds = [each.type for each in await access.messages_so_far(Caller(None), "run-long-1")]
        assert kinds == ["mcp_approval_request", "mcp_approval_response", "message", "mcp_approval_request"]
        await app.stop_chat(run.user_id, run.session_id, run.run_id, wait=True)
