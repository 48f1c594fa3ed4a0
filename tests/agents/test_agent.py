"""The loop: what an agent streams, what it sends to its model, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
import trio
import trio.lowlevel

from trio_agentapp import AgentApp, AgentRequest, Message, Run
from trio_agentapp.agents import Agent, ChatModel, ModelError, Tool, TurnLimitReached, chat_messages
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.runs import current_run
from trio_agentapp.testing import call, hang_up, model_server, refuse, think

SESSION = {"user_id": "u1", "session_id": "s1"}


async def clock(city: str) -> str:
    """The time of day in a city."""
    await trio.lowlevel.checkpoint()
    return {"Rome": "13:00", "Oslo": "14:00"}[city]


def with_tools(*tools: Any, **options: Any) -> Callable[[ChatModel], Agent]:
    return lambda model: Agent(model, tools=tools, **options)


def shown(message: Any) -> tuple[Any, ...]:
    content = message.content[0]
    return message.type, message.role, content.payload["data"] if content.type == "data" else content.text


async def test_the_golden_stream(asked: Any) -> None:
    rome, oslo = call("clock", city="Rome"), call("clock", city="Oslo")
    first = [think("Let me "), think("see."), "I ", "look.", rome, oslo]
    second = [think("Now I know."), "It is 1", " and 2."]
    async with asked(first, second, agent=with_tools(clock, instructions="Be brief.")) as app:
        events = []
        async with app.app.stream_query({"input": "What time is it?", **SESSION}) as stream:
            async for event in stream:
                events.append(event)
        end = events[-1]
        assert end.status == "completed"
        assert end.usage == {"input_tokens": 20, "output_tokens": 10, "total_tokens": 30}
        named = {"name": "clock"}
        assert [shown(message) for message in end.output] == [
            ("reasoning", "assistant", "Let me see."),
            ("message", "assistant", "I look."),
            ("plugin_call", "assistant", {"call_id": rome.id, **named, "arguments": '{"city":"Rome"}'}),
            ("plugin_call", "assistant", {"call_id": oslo.id, **named, "arguments": '{"city":"Oslo"}'}),
            ("plugin_call_output", "tool", {"call_id": rome.id, **named, "output": "13:00"}),
            ("plugin_call_output", "tool", {"call_id": oslo.id, **named, "output": "14:00"}),
            ("reasoning", "assistant", "Now I know."),
            ("message", "assistant", "It is 1 and 2."),
        ]
        deltas = [event.text for event in events if event.object == "content" and event.delta]
        assert deltas == ["Let me ", "see.", "I ", "look.", "Now I know.", "It is 1", " and 2."]

        calls = [
            {"id": each.id, "type": "function", "function": {**named, "arguments": each.arguments}}
            for each in (rome, oslo)
        ]
        talk = [
            {"role": "user", "content": "What time is it?"},
            {"role": "assistant", "content": "I look.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": rome.id, "content": "13:00"},
            {"role": "tool", "tool_call_id": oslo.id, "content": "14:00"},
        ]
        system = {"role": "system", "content": "Be brief."}
        assert [request["messages"] for request in app.server.requests] == [[system, talk[0]], [system, *talk]]
        assert app.server.requests[1]["tools"] == [Tool(clock).schema]
        assert await app.saved() == [*talk, {"role": "assistant", "content": "It is 1 and 2."}]


async def test_the_next_turn_has_the_conversation(asked: Any) -> None:
    async with asked([call("clock", city="Rome")], ["It is one."], ["Yes."], agent=with_tools(clock)) as app:
        await app.ask("What time is it?")
        await app.ask("Really?")
        sent = [message["role"] for message in app.server.requests[2]["messages"]]
        assert sent == ["user", "assistant", "tool", "assistant", "user"]
        await app.ask("Hello", session_id="s2")
        assert len(app.server.requests[3]["messages"]) == 1


async def test_old_turns_are_forgotten(asked: Any) -> None:
    async with asked(lambda body: ["Yes."], agent=lambda model: Agent(model, max_messages=4)) as app:
        for text in "abc":
            await app.ask(text)
        assert [message["content"] for message in await app.saved()] == ["b", "Yes.", "c", "Yes."]


async def test_tools_of_one_answer_run_at_the_same_time(asked: Any) -> None:
    """Each waits for the other. Their results have the order of the calls."""
    met = {"a": trio.Event(), "b": trio.Event()}

    async def meet(me: str, other: str) -> str:
        met[me].set()
        await met[other].wait()
        if me == "a":
            await trio.sleep(0.05)
        return f"I am {me}."

    calls = [call("meet", me="a", other="b"), call("meet", me="b", other="a")]
    async with asked(calls, ["Done."], agent=with_tools(meet)) as app:
        with trio.fail_after(5):
            end = await app.ask("Go")
        outputs = [shown(message)[2]["output"] for message in end.output if message.type == "plugin_call_output"]
        assert outputs == ["I am a.", "I am b."]


async def test_what_goes_wrong_in_tools_is_told_to_the_model(asked: Any) -> None:
    async def fail() -> None:
        raise OSError("the disk is full")

    calls = [
        call("fail"),
        call("clock", town="Rome"),
        call("clock", "{oops"),
        call("watch"),
        call("slow"),
        call("long"),
    ]
    tools = [fail, clock, Tool(trio.sleep_forever, name="slow", timeout=0.05), Tool(lambda: "x" * 100, name="long")]
    async with asked(calls, ["I see."], agent=with_tools(*tools, max_output=90)) as app:
        end = await app.ask("Go")
        assert end.status == "completed"
        results = [
            message["content"] for message in app.server.requests[1]["messages"] if message["role"] == "tool"
        ]
    malformed = results.pop(2)
    assert malformed.startswith("Error: the arguments of clock are not valid: JSON is malformed")
    assert results == [
        "Error: fail failed: OSError: the disk is full",
        "Error: the arguments of clock are not valid: Object contains unknown field `town`",
        "Error: there is no tool 'watch'; there are: fail, clock, slow, long",
        "Error: slow took longer than 0.05 s and was stopped.",
        "x" * 90 + "\n[cut: the output has 100 characters]",
    ]


async def test_calls_that_a_model_makes_up_leave_a_conversation_that_servers_accept(asked: Any) -> None:
    twins = [call("clock", city="Rome"), call("clock", city="Oslo")]
    twins[1].id = twins[0].id
    nested = call("clock", '{"city": ' + "[" * 100_000 + "]" * 100_000 + "}")
    calls = [call("functions.clock", city="Rome"), call("", ""), call("x" * 100), nested, *twins]
    async with asked(calls, ["I see."], ["Yes."], agent=with_tools(clock)) as app:
        assert (await app.ask("Go")).status == "completed"
        first, second, third, fourth, *others = [
            message["content"] for message in await app.saved() if message["role"] == "tool"
        ]
        assert first == "Error: there is no tool 'functions.clock'; there are: clock"
        assert second == "Error: there is no tool ''; there are: clock"
        assert third.startswith("Error: there is no tool 'xxx")
        assert fourth == "Error: the arguments of clock are not valid: Expected `str`, got `array` - at `$.city`"
        assert others == ["13:00", "14:00"]
        assert (await app.ask("Really?")).status == "completed"


async def test_usage_that_is_not_a_number_is_not_counted(asked: Any) -> None:
    usage = (
        b'data: {"choices": [], "usage": {"prompt_tokens": "12", "completion_tokens": [], "total_tokens": 3}}\n\n'
    )
    async with asked(["Yes.", usage], agent=lambda model: Agent(model, options={"stream_options": None})) as app:
        end = await app.ask("Hello")
        assert end.status == "completed"
        assert end.usage == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 3}


async def test_a_tool_gets_the_run(asked: Any) -> None:
    async def whose(run: Run) -> str:
        await run.emit(Message.reasoning("I look it up."))
        return f"{run.user_id} {current_run.get() is run}"

    def in_thread(run: Run) -> str:
        return f"{run.session_id} {bool(run.stopping)}"

    async with asked([call("whose"), call("in_thread")], ["Done."], agent=with_tools(whose, in_thread)) as app:
        end = await app.ask("Go")
        outputs = [shown(message)[2]["output"] for message in end.output if message.type == "plugin_call_output"]
        assert outputs == ["u1 True", "s1 False"]
        assert ("reasoning", "assistant", "I look it up.") in [shown(message) for message in end.output]
        assert "parameters" in app.server.requests[0]["tools"][0]["function"]
        assert app.server.requests[0]["tools"][0]["function"]["parameters"]["properties"] == {}


async def test_turns_are_bounded(asked: Any, caplog: pytest.LogCaptureFixture) -> None:
    used = []

    async def again() -> str:
        used.append(1)
        return "again"

    async with asked(lambda body: [call("again")], agent=with_tools(again, max_turns=3)) as app:
        end = await app.ask("Go")
        assert end.status == "failed"
        assert [message.code for message in end.output if message.type == "error"] == ["turn_limit_reached"]
        assert len(app.server.requests) == 3
        assert len(used) == 2
        saved = await app.saved()
        assert saved[-1]["content"] == "This call was stopped before it had a result."
    assert "TurnLimitReached: The agent had no answer after 3 turns. Raise max_turns" in caplog.text


@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        ([refuse(401, "Wrong key sk-1")], []),
        (["Half an ans", hang_up()], ["Half an ans"]),
        (["Half ", b"data: {oops\n\n"], ["Half "]),
    ],
)
async def test_a_failure_of_the_model(asked: Any, parts: Any, kept: list[str], caplog: Any) -> None:
    async with asked(parts, ["Well."]) as app:
        end = await app.ask("Hello")
        assert (end.status, end.error.message) == ("failed", "The agent failed.")
        error = end.output[-1]
        assert (error.type, error.code) == ("error", "model_error")
        assert error.message.startswith("The model's server ")
        assert "sk-1" not in error.message
        assert "ModelError: The model's server" in caplog.text
        assert [message["content"] for message in await app.saved()] == ["Hello", *kept]
        assert (await app.ask("And now?")).status == "completed"


async def test_two_users_at_once(asked: Any) -> None:
    """Both are in a tool at the same time, of one agent."""
    inside: list[str] = []
    both = trio.Event()

    async def look(name: str, run: Run) -> str:
        inside.append(name)
        if len(inside) == 2:
            both.set()
        await both.wait()
        return f"{name} is {run.user_id}"

    def script(body: dict[str, Any]) -> Any:
        last = body["messages"][-1]
        if last["role"] == "tool":
            return [think("Hm."), last["content"], "."]
        return [call("look", name=last["content"])]

    answers = {}
    async with asked(script, agent=with_tools(look)) as app:

        async def ask(user: str) -> None:
            answers[user] = await app.ask(user.upper(), user_id=user)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "ann")
                nursery.start_soon(ask, "bob")
        for user in ("ann", "bob"):
            assert answers[user].output[-1].content[0].text == f"{user.upper()} is {user}."
            assert answers[user].usage["total_tokens"] == 30
            saved = await app.saved(user_id=user)
            assert [message["content"] for message in saved if message["role"] != "assistant"] == [
                user.upper(),
                f"{user.upper()} is {user}",
            ]


async def test_an_agent_without_an_app(strict: Any) -> None:
    async with model_server(["Hm. ", call("clock", city="Rome")], ["One."]) as server:
        async with ChatModel("m", base_url=server.url) as model:
            talk = [{"role": "user", "content": "What time is it?"}]
            valid = []
            async with aclosing(Agent(model, tools=[clock], options={"seed": 1}).stream(talk)) as items:
                async for item in items:
                    strict(talk)  # at every moment
                    valid.append(item)
                    if isinstance(item, Message) and item.type == "plugin_call":
                        assert talk[-1]["content"] == "This call was stopped before it had a result."
    assert [item for item in valid if isinstance(item, str)] == ["Hm. ", "One."]
    assert talk[-1] == {"role": "assistant", "content": "One."}
    assert server.requests[0]["seed"] == 1


async def test_an_answer_as_text() -> None:
    async with model_server(["One ", "word"], [], [call("clock", city="Rome")], ["Done"], ["a"]) as server:
        async with ChatModel("m", base_url=server.url) as model:
            agent = Agent(model, tools=[clock])
            assert await agent.ask("Hello") == "One word"
            assert await agent.ask("Hello") == ""
            assert await agent.ask("Hello") == "Done"


async def test_a_handler_of_ones_own() -> None:
    async with model_server(["Let me look. ", call("clock", city="Rome")], ["One."]) as server:
        model = ChatModel("m", base_url=server.url)
        agent = Agent(model, tools=[clock])
        app = AgentApp(lifespan=model.lifespan)

        @app.query()
        async def chat(msgs: list[Message], request: AgentRequest) -> Any:
            states = app.state.state_service
            state = await states.load(request.user_id, request.session_id) or {"talk": []}
            talk = state["talk"] + chat_messages(msgs)
            try:
                async for item in agent.stream(talk):
                    yield item
            finally:
                await states.save(request.user_id, request.session_id, {"talk": talk})

        async with app.runtime():
            async with app.stream_query({"input": "Hello", **SESSION}) as events:
                async for event in events:
                    last = event
            assert last.status == "completed"
            assert last.output[-1].content[0].text == "One."
            kept = await app.state.state_service.load("u1", "s1")
            assert [message["role"] for message in kept["talk"]] == ["user", "assistant", "tool", "assistant"]


async def test_the_error_of_a_limit_is_raised() -> None:
    async with model_server([call("clock", city="Rome")], [refuse(400, "bad")]) as server:
        async with ChatModel("m", base_url=server.url) as model:
            with pytest.raises(TurnLimitReached):
                await Agent(model, tools=[clock], max_turns=1).ask("Hello")
            with pytest.raises(ModelError):
                await Agent(model).ask("Hello")


def test_settings_that_cannot_work() -> None:
    model = ChatModel("m")
    with pytest.raises(ConfigurationError, match="two tools have the name 'clock'"):
        Agent(model, tools=[clock, Tool(clock)])
    with pytest.raises(ConfigurationError, match="must be at least 1"):
        Agent(model, max_turns=0)
