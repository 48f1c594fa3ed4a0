"""The page's "Full Example": an agent of agentscope 1.0 with state and interruption."""

import asyncio
from contextlib import asynccontextmanager

from agentscope.agent import ReActAgent
from agentscope.formatter import DashScopeChatFormatter
from agentscope.memory import InMemoryMemory
from agentscope.pipeline import stream_printing_messages
from agentscope.session import RedisSession
from agentscope.tool import Toolkit, execute_python_code
from model import ScriptedModel

from trio_agentapp import AgentApp, AgentRequest


# 1. Define Lifecycle
@asynccontextmanager
async def lifespan(app: AgentApp):
    import fakeredis

    fake_redis = fakeredis.aioredis.FakeRedis(decode_responses=True)
    # NOTE: This FakeRedis instance is for development/testing only.
    # In production, replace it with your own Redis client/connection.
    app.state.session = RedisSession(connection_pool=fake_redis.connection_pool)
    try:
        yield
    finally:
        print("AgentApp is shutting down...")


# 2. Create AgentApp
agent_app = AgentApp(
    app_name="Friday",
    app_description="A helpful assistant",
    lifespan=lifespan,
    # Note: Using local interrupt backend as no redis url is provided.
    # `interrupt_redis_url` supports distributed interrupts.
)


# 3. Define Request Handling Logic
@agent_app.query(framework="agentscope")
async def query_func(
    self,
    msgs,
    request: AgentRequest = None,
    **kwargs,
):
    session_id = request.session_id
    user_id = request.user_id

    toolkit = Toolkit()
    toolkit.register_tool_function(execute_python_code)

    agent = ReActAgent(
        name="Friday",
        model=ScriptedModel(),
        sys_prompt="You're a helpful assistant named Friday.",
        toolkit=toolkit,
        memory=InMemoryMemory(),
        formatter=DashScopeChatFormatter(),
    )
    agent.set_console_output_enabled(enabled=True)

    # Load agent state
    await agent_app.state.session.load_session_state(
        session_id=session_id,
        user_id=user_id,
        agent=agent,
    )

    try:
        async for msg, last in stream_printing_messages(
            agents=[agent],
            coroutine_task=agent(msgs),
        ):
            yield msg, last

    except asyncio.CancelledError:
        # Interruption logic
        print(f"Task {session_id} was manually interrupted.")

        # Manually interrupt the agent to fully stop underlying execution
        await agent.interrupt()

        # Re-raise to mark status as STOPPED
        raise

    finally:
        # Save agent state
        await agent_app.state.session.save_session_state(
            session_id=session_id,
            user_id=user_id,
            agent=agent,
        )


# 4. Register Interrupt Route
@agent_app.post("/stop")
async def stop_task(request: AgentRequest):
    await agent_app.stop_chat(
        user_id=request.user_id,
        session_id=request.session_id,
    )
    return {
        "status": "success",
        "message": "Interrupt signal broadcasted.",
    }


# 5. Run Application
if __name__ == "__main__":
    agent_app.run(host="127.0.0.1", port=8090)
