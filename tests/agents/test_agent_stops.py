"""A stop ends everything that an agent has started, and the conversation that is saved is valid."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from trio_agentapp import AgentApp, Message, Run
from trio_agentapp.agents import Agent, ChatModel, Tool, chat_messages
from trio_agentapp.protocol.message import INTERRUPTED
from trio_agentapp.testing import call, model_server, think, wait

SESSION = {"user_id": "u1", "session_id": "s1"}


def written(event: Any, text: str = "") -> bool:
    return event.object == "content" and bool(event.delta) and text in (event.text or "")


def with_tools(*tools: Any, **options: Any) -> Callable[[ChatModel], Agent]:
    return lambda model: Agent(model, tools=tools, **options)


async def left(app: Any) -> None:
    with trio.fail_after(2):
        await app.server.left.wait()


async def next_turn(app: Any) -> None:
    """The app fixture checks that a strict provider accepts it."""
    assert (await app.ask("Go on")).status == "completed"


@pytest.mark.parametrize("parts", [[wait()], [think("Hm"), wait()]])
async def test_before_the_first_token(asked: Any, parts: Any) -> None:
    async with asked(parts, ["Well."]) as app:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.ask, "Hello")
            with trio.fail_after(5):
                while not app.server.requests:
                    await trio.sleep(0.01)
            receipt = await app.app.stop_chat("u1", "s1", wait=True)
            assert receipt.stopped
        await left(app)
        assert await app.saved() == [{"role": "user", "content": "Hello"}]
        await next_turn(app)


@pytest.mark.parametrize("pause", [[wait()], []])
async def test_in_the_first_token(asked: Any, pause: Any) -> None:
    """Both while the model is silent, and while it sends without end."""
    parts = ["One ", *pause, *["more "] * 10_000]
    async with asked(parts, ["Well."]) as app:
        end = await app.ask_and_stop("Hello", lambda event: written(event, "One "))
        assert end.status == "canceled"
        await left(app)
        _, answer = await app.saved()
        assert answer["role"] == "assistant"
        assert answer["content"].startswith(end.output[0].content[0].text)
        await next_turn(app)


async def test_in_the_last_token(asked: Any) -> None:
    """The whole text has arrived, but not the end of the answer."""
    async with asked(["One ", "two.", wait()], ["Well."]) as app:
        end = await app.ask_and_stop("Hello", lambda event: written(event, "two."))
        assert end.status == "canceled"
        assert (await app.saved())[-1] == {"role": "assistant", "content": "One two."}
        await next_turn(app)


async def test_in_the_middle_of_a_call(asked: Any) -> None:
    """The arguments are not complete, so the call is not in the conversation."""
    piece = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}
    half = f"data: {json.dumps({'choices': [{'delta': {'tool_calls': [piece]}}]})}\n\n".encode()
    async with asked(["I look. ", half, wait()], ["Well."]) as app:
        await app.ask_and_stop("Hello", written)
        assert (await app.saved())[-1] == {"role": "assistant", "content": "I look. "}
        await next_turn(app)


async def test_in_a_tool(asked: Any) -> None:
    """A finished tool keeps its result, and the others get one. All have ended when the receipt is there."""
    started, ended = trio.Event(), []

    async def quick() -> str:
        return "quick result"

    async def slow(name: str, run: Run) -> None:
        try:
            if name == "b":
                started.set()
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(0.05)
            ended.append(name)

    calls = [call("slow", name="a"), call("quick"), call("slow", name="b")]
    async with asked(["I look. ", *calls], ["Well."], agent=with_tools(quick, slow)) as app:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                end = await app.ask("Hello")
                assert end.status == "canceled"

            nursery.start_soon(ask)
            with trio.fail_after(5):
                await started.wait()
            await trio.testing.wait_all_tasks_blocked()
            receipt = await app.app.stop_chat("u1", "s1", wait=True)
            assert receipt.stopped
            assert sorted(ended) == ["a", "b"]
        saved = await app.saved()
        assert [message["content"] for message in saved] == [
            "Hello",
            "I look. ",
            INTERRUPTED,
            "quick result",
            INTERRUPTED,
        ]
        await next_turn(app)


async def test_before_the_calls_are_shown(asked: Any) -> None:
    async def quick() -> str:
        return "a"

    async with asked([call("quick")], ["Well."], agent=with_tools(quick)) as app:
        await app.ask_and_stop("Hello", lambda event: event.object == "message" and event.type == "plugin_call")
        await app.saved()
        await next_turn(app)


async def test_a_stop_of_several_tools_is_one_cancelled() -> None:
    """A handler sees it as any other stop, and nothing is reported about its cleanup."""
    seen: list[BaseException] = []
    inside = trio.Event()

    async def slow() -> None:
        inside.set()
        await trio.sleep_forever()

    async with model_server([call("slow"), call("slow")]) as server:
        model = ChatModel("m", base_url=server.url)
        app = AgentApp(lifespan=model.lifespan)

        @app.query()
        async def chat(msgs: list[Message]) -> Any:
            try:
                async for item in Agent(model, tools=[slow]).stream(chat_messages(msgs)):
                    yield item
            except BaseException as error:
                seen.append(error)
                raise

        async with app.runtime():
            async with app.stream_query({"input": "Hello", **SESSION}) as events:
                async for event in events:
                    if event.object == "message" and event.type == "plugin_call":
                        with trio.fail_after(5):
                            await inside.wait()
                        await trio.testing.wait_all_tasks_blocked()
                        await app.stop_chat("u1", "s1", wait=True)
            assert event.status == "canceled"
    assert [type(error) for error in seen] == [trio.Cancelled]


async def test_a_loop_that_is_left_at_its_yield(caplog: pytest.LogCaptureFixture, strict: Any) -> None:
    """Without `aclosing`, as the guide writes it. The state is valid, and the connection is closed."""
    async with model_server(["more "] * 10_000) as server:
        model = ChatModel("m", base_url=server.url)
        agent = Agent(model)
        app = AgentApp(lifespan=model.lifespan)
        saved: list[Any] = []

        @app.query()
        async def chat(msgs: list[Message]) -> Any:
            talk = chat_messages(msgs)
            try:
                async for item in agent.stream(talk):
                    yield item
            finally:
                saved.extend(talk)

        async with app.runtime():
            async with app.stream_query({"input": "Hello", **SESSION}) as events:
                async for event in events:
                    if written(event):
                        await app.stop_chat("u1", "s1", wait=True)
            with trio.fail_after(2):
                await server.left.wait()
    strict(saved)
    assert saved[1]["content"].startswith("more ")
    assert not caplog.records


class Works:
    """Tools that leave something behind if they are not ended: a process, and a thread."""

    def __init__(self) -> None:
        self.pid = 0
        self.beats = 0
        self.thread_ended = False

    async def compile(self, run: Run) -> str:
        async with run.open_process(["sleep", "1000"]) as process:
            self.pid = process.pid
            await process.wait()
        return "compiled"

    def count(self) -> str:
        try:
            while True:
                self.beats += 1
                trio.from_thread.check_cancelled()
                time.sleep(0.01)
        finally:
            time.sleep(0.2)  # a thread that was left alone would end after the receipt
            self.thread_ended = True

    async def wait_started(self) -> None:
        with trio.fail_after(5):
            while not (self.pid and self.beats):
                await trio.sleep(0.01)

    def check_gone(self) -> None:
        """On a slow machine a time limit may have ended them before they began."""
        if self.pid:
            with pytest.raises(ProcessLookupError):
                os.kill(self.pid, 0)
        assert self.thread_ended or not self.beats


def three_levels(works: Works, **limits: float) -> Callable[[ChatModel], Agent]:
    def made(model: ChatModel) -> Agent:
        inner = Agent(model, instructions="inner", tools=[works.compile, works.count])
        middle = Agent(
            model, instructions="middle", tools=[inner.as_tool("ask_inner", "Builds.", timeout=limits.get("inner"))]
        )
        ask_middle = middle.as_tool("ask_middle", "Plans.", timeout=limits.get("middle"))
        return Agent(model, instructions="outer", tools=[ask_middle])

    return made


def levels_script(body: dict[str, Any]) -> Any:
    level = body["messages"][0]["content"]
    last = body["messages"][-1]
    if last["role"] == "tool":
        return [f"{level} got: {last['content']}"]
    if level == "inner":
        return [call("compile"), call("count")]
    return [call("ask_middle" if level == "outer" else "ask_inner", task=f"from {level}")]


async def test_three_levels_of_agents_end_with_their_run(asked: Any) -> None:
    works = Works()
    async with asked(levels_script, agent=three_levels(works)) as app:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.ask, "Go")
            await works.wait_started()
            os.kill(works.pid, 0)
            with trio.fail_after(1):
                receipt = await app.app.stop_chat("u1", "s1", wait=True)
            assert receipt.stopped
            works.check_gone()
        assert [message["content"] for message in await app.saved()] == ["Go", None, INTERRUPTED]
        assert [request["messages"][-1]["content"] for request in app.server.requests] == [
            "Go",
            "from outer",
            "from middle",
        ]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"inner": 0.5}, "outer got: middle got: Error: ask_inner took longer than 0.5 s and was stopped."),
        ({"middle": 0.5}, "outer got: Error: ask_middle took longer than 0.5 s and was stopped."),
        ({"middle": 0.5, "inner": 60}, "outer got: Error: ask_middle took longer than 0.5 s and was stopped."),
    ],
)
async def test_time_limits_nest(asked: Any, limits: dict[str, float], said: str) -> None:
    works = Works()
    async with asked(levels_script, agent=three_levels(works, **limits)) as app:
        with trio.fail_after(5):
            end = await app.ask("Go")
        works.check_gone()
        assert end.status == "completed"
        assert end.output[-1].content[0].text == said


async def test_the_limit_of_the_run_ends_all(asked: Any) -> None:
    works = Works()
    async with asked(levels_script, agent=three_levels(works, middle=60, inner=60)) as app:
        with trio.fail_after(5):
            async with app.app.stream_query({"input": "Go", "timeout_s": 0.5, **SESSION}) as events:
                async for event in events:
                    last = event
        works.check_gone()
        assert (last.status, last.error.code) == ("failed", "deadline_exceeded")
        await app.saved()


async def test_sub_agents_answer_their_agent_and_count_for_its_run(asked: Any) -> None:
    def script(body: dict[str, Any]) -> Any:
        level = body["messages"][0]["content"]
        if level == "inner":
            return [think("Hm."), f"{body['messages'][-1]['content']}!"]
        return levels_script(body)

    async with asked(script, agent=three_levels(Works())) as app:
        end = await app.ask("Go")
        assert end.output[-1].content[0].text == "outer got: middle got: from middle!"
        assert end.usage["total_tokens"] == 5 * 15


async def test_a_failure_of_a_sub_agent_is_told_to_its_agent(asked: Any) -> None:
    def script(body: dict[str, Any]) -> Any:
        return [call("again")] if body["messages"][0]["content"] == "inner" else levels_script(body)

    def made(model: ChatModel) -> Agent:
        inner = Agent(model, instructions="inner", tools=[Tool(lambda: "again", name="again")], max_turns=2)
        return Agent(model, instructions="middle", tools=[inner.as_tool("ask_inner", "Builds.")])

    async with asked(script, agent=made) as app:
        end = await app.ask("Go")
        assert (
            end.output[-1]
            .content[0]
            .text.startswith(
                "middle got: Error: ask_inner failed: TurnLimitReached: The agent had no answer after 2 turns."
            )
        )


async def test_fifty_chats_are_stopped_at_once(asked: Any) -> None:
    """In a tool and in an answer; all end as canceled, each with a valid state."""
    inside = 0

    async def slow() -> None:
        nonlocal inside
        inside += 1
        await trio.sleep_forever()

    def script(body: dict[str, Any]) -> Any:
        number = int(body["messages"][-1]["content"])
        return ["Partial", wait()] if number % 2 else [call("slow")]

    async with asked(script, agent=with_tools(slow)) as app:
        ends = []
        partial = 0

        async def ask(number: int) -> None:
            nonlocal partial
            request = {"input": f"{number}", "user_id": "u1", "session_id": f"s{number}"}
            async with app.app.stream_query(request) as events:
                async for event in events:
                    partial += written(event)
            ends.append(event)

        async def stop(number: int) -> None:
            receipt = await app.app.stop_chat("u1", f"s{number}", wait=True)
            assert receipt.stopped

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(ask, number)
                while inside < 25 or partial < 25:
                    await trio.sleep(0.01)
                async with trio.open_nursery() as stops:
                    for number in range(50):
                        stops.start_soon(stop, number)
        assert {end.status for end in ends} == {"canceled"}
        assert len(ends) == 50
        for number in range(50):
            last = (await app.saved(session_id=f"s{number}"))[-1]
            assert last["content"] in ("Partial", INTERRUPTED)
