"""Handlers of every kind, and what `run` offers them."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import trio
import trio.lowlevel

from trio_agentapp import (
    AgentApp,
    AgentRequest,
    CancelAfter,
    DataContent,
    ImageContent,
    Message,
    Run,
    TextContent,
    Timings,
)
from trio_agentapp.client import Retries

app = AgentApp(app_name="Typed", on_disconnect=CancelAfter(10), timings=Timings(lease=15), cleanup_budget=5)


@app.query()
async def async_generator(
    msgs: list[Message], request: AgentRequest, run: Run
) -> AsyncIterator[str | Message | TextContent | DataContent | ImageContent | tuple[Message, bool]]:
    user: str | None = request.user_id
    yield f"{user} said {msgs[-1].text}"
    yield TextContent("Hel", delta=True)
    yield DataContent({"hour": 12})
    yield ImageContent(image_url="https://example.com/clock.png")
    yield Message.reasoning("Short will do.")
    yield Message.tool_call("clock", {"zone": "UTC"})
    yield Message(content="Grow"), False


@app.query
async def without_parentheses(msgs: list[Message]) -> str:
    return msgs[0].text


@app.query(framework="text")
def sync_generator(msgs: list[Message], run: Run) -> Iterator[str]:
    for message in msgs:
        if run.stopping:
            return
        yield message.text


@app.query()
def sync_function(self: Any, msgs: list[Message], request: AgentRequest | None = None, **kwargs: Any) -> str:
    return msgs[-1].text


# A decorator gives back the function that it got.
registered: str = sync_function(None, [Message(role="user", content="Hi")])
unregistered = AgentApp(agent=async_generator)


@app.query()
async def everything_of_run(run: Run) -> None:
    run_id: str = run.run_id
    key: tuple[str, str] = (run.user_id, run.session_id)
    token: int = run.token
    if run.deadline < trio.current_time() or run.stopping.is_set():
        return

    async def child(name: str, times: int) -> None:
        for _ in range(times):
            await run.emit(f"{name} of {run_id}")

    async def close() -> None:
        await trio.lowlevel.checkpoint()

    def close_now() -> None: ...

    run.start_soon(child, "child", 3)
    run.on_exit(close)
    run.on_exit(close_now)
    run.usage = {"input_tokens": token}
    message: Message = await run.receive()
    await run.emit(message)
    async with run.cleanup():
        await app.state.state_service.save(*key, {"said": message.text})
    async with run.open_process(["make", "all"], stdout=subprocess.PIPE) as process:
        code: int = await process.wait()
    await run.emit(str(code))


# What must not pass.

run_id_of_app: int = app.node_id  # type: ignore[assignment]
wrong_timings = AgentApp(timings=Timings(lease="15"))  # type: ignore[arg-type]
wrong_retries = Retries(attempts="8")  # type: ignore[arg-type]
wrong_role = Message(role="robot", content="Beep")  # type: ignore[arg-type]
wrong_call = Message.tool_call({"zone": "UTC"})  # type: ignore[call-arg, arg-type]

app.query()(5)  # type: ignore[type-var]
app.query(framework=5)  # type: ignore[call-overload]
app.query("text", lambda: "x")  # type: ignore[call-overload]


@app.query()
async def wrong_uses_of_run(run: Run) -> None:
    async def child(name: str, times: int) -> None: ...

    run.start_soon(child, "child")  # type: ignore[arg-type]
    run.start_soon(child, "child", "three")  # type: ignore[arg-type]
    run.start_soon(child("child", 3))  # type: ignore[arg-type]
    run.on_exit(5)  # type: ignore[arg-type]
    run.run_id.stop()  # type: ignore[attr-defined]
    run.usage = 12  # type: ignore[assignment]
    with run.cleanup():  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    async with run.open_process("ls", shel=True):  # type: ignore[call-arg]
        pass
    run.emitt("Hello")  # type: ignore[attr-defined]
    said: str = await run.receive()  # type: ignore[assignment]
    await run.emit(said)
