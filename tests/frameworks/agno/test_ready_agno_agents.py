"""Ready agents and teams, `AgentApp(agent=agent)`: the state of each session, also after a stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import trio

pytest.importorskip("agno", reason="it has an environment of its own: make test-frameworks")

from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.memory import MemoryManager
from agno.models.base import Model
from agno.models.response import ModelResponse
from agno.run import RunContext
from agno.team import Team
from agno.tools import tool
from agno.workflow import Workflow

from trio_agentapp import AgentApp
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.frameworks import adapter_of

SEEN: list[list[tuple[str, str | None]]] = []
"""What the model was given, request by request."""

WAITS: list[Callable[[], object]] = []
"""Called when a tool has begun to wait."""


@pytest.fixture(autouse=True)
def _nothing_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGNO_TELEMETRY", "false")
    SEEN.clear()
    WAITS.clear()


@dataclass
class Scripted(Model):
    """Says "word word ". It takes one step of the user's text for each request, such as "call look wait, endless":
    "endless" makes it talk without end, "fail" fail, "call NAME" call tools."""

    id: str = "scripted"

    def invoke(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    ainvoke = invoke_stream = invoke  # type: ignore[assignment]

    def _parse_provider_response(self, response: Any, **options: Any) -> Any:
        return response

    _parse_provider_response_delta = _parse_provider_response

    async def ainvoke_stream(self, messages: list[Any], **options: Any) -> AsyncIterator[ModelResponse]:
        refuse_invalid(messages)
        SEEN.append([(message.role, message.content) for message in messages if message.role != "system"])
        asked = next(number for number in range(len(messages) - 1, -1, -1) if messages[number].role == "user")
        done = sum(bool(message.tool_calls) for message in messages[asked:])
        step = [*str(messages[asked].content).split(", "), "", ""][done]
        if step.startswith("call "):
            functions = [{"name": name, "arguments": '{"what": "sky"}'} for name in step[5:].split()]
            calls = [{"id": f"c-{each['name']}", "type": "function", "function": each} for each in functions]
            yield ModelResponse(tool_calls=calls)
            return
        for word in ["word "] * (10_000 if step == "endless" else 2):
            yield ModelResponse(content=word)
            await asyncio.sleep(0.01)
            if step == "fail":
                raise RuntimeError("the provider is down")


def refuse_invalid(messages: list[Any]) -> None:
    """Refuse what providers of models refuse: open calls, outputs without a call, messages without content."""
    open_calls: list[str] = []
    for message in messages:
        if message.role == "tool":
            assert message.tool_call_id in open_calls
            open_calls.remove(message.tool_call_id)
        else:
            assert open_calls == []
            assert message.content or message.tool_calls
        open_calls += [call["id"] for call in message.tool_calls or () if message.role == "assistant"]
    assert open_calls == []


async def look(what: str) -> str:
    """Look at a thing."""
    return f"{what}: blue"


async def wait(what: str) -> str:
    """Wait for ever."""
    WAITS.pop()()
    await asyncio.sleep(3600)
    return what


@tool(requires_confirmation=True)
async def paint(what: str) -> str:
    """Paint a thing."""
    return f"{what}: painted"


@tool(requires_user_input=True, user_input_fields=["color"])
async def dye(what: str, color: str) -> str:
    """Dye a thing."""
    return f"{what}: {color}"


@tool(external_execution=True)
async def measure(what: str) -> str:
    """Measure a thing elsewhere."""
    raise NotImplementedError


TOOLS = [look, wait, paint, dye, measure]


def runnable(kind: str, **options: Any) -> Any:
    if kind == "agent":
        return Agent(model=Scripted(), tools=TOOLS, **options)  # type: ignore[arg-type]
    return Team(model=Scripted(), tools=TOOLS, members=[Agent(name="Bob", model=Scripted())], **options)  # type: ignore[arg-type]


@pytest.fixture(params=["agent", "agent with db", "team", "team with db"])
def app(request: pytest.FixtureRequest) -> AgentApp:
    kind, _, own = request.param.partition(" ")
    return AgentApp(agent=runnable(kind, **({"db": InMemoryDb(), "add_history_to_context": True} if own else {})))


async def play(app: AgentApp, text: Any, *, stop_at: str = "", after: trio.Event | None = None, **ids: str) -> Any:
    """The last event of a chat. It is stopped when a text, or a part of a tool call, has been sent, and `after`."""
    ids = {"user_id": "u", "session_id": "s", **ids}
    with trio.fail_after(30):
        async with app.stream_query({"input": text, **ids}) as events:
            async for event in events:
                shown = getattr(event, "text", None) or str(getattr(event, "data", None) or "")
                if stop_at and stop_at in shown:
                    stop_at = ""
                    if after is not None:
                        await after.wait()
                    await app.stop_chat(ids["user_id"], ids["session_id"])
    return event


async def test_the_next_turn_continues_the_conversation(app: AgentApp) -> None:
    async with app.runtime():
        assert (await play(app, "one")).status == "completed"
        await play(app, "two")
    assert SEEN[-1] == [("user", "one"), ("assistant", "word word "), ("user", "two")]


async def test_users_and_sessions_do_not_share_a_conversation(app: AgentApp) -> None:
    chats = (("u", "s"), ("u/s", "t"), ("u", "s/t"), ("v", "s"))
    async with app.runtime():
        async with trio.open_nursery() as nursery:
            for user, session in chats:
                nursery.start_soon(lambda u=user, s=session: play(app, f"of {u} {s}", user_id=u, session_id=s))
        for user, session in chats:
            await play(app, "again", user_id=user, session_id=session)
            assert SEEN[-1] == [("user", f"of {user} {session}"), ("assistant", "word word "), ("user", "again")]


async def test_the_partial_answer_of_a_stopped_run_is_kept(app: AgentApp) -> None:
    async with app.runtime():
        await play(app, "one")
        assert (await play(app, "endless", stop_at="word")).status == "canceled"
        await play(app, "two")
        await play(app, "endless", stop_at="word")
        await play(app, "three")
    assert [role for role, _ in SEEN[2]] == ["user", "assistant", "user", "assistant", "user"]
    assert str(SEEN[2][3][1]).startswith("word")
    assert SEEN[2][2][1] == "endless"
    assert [role for role, _ in SEEN[4]][-3:] == ["user", "assistant", "user"]


async def test_a_stop_in_a_tool_leaves_no_open_call(app: AgentApp) -> None:
    waits = trio.Event()
    WAITS.append(lambda: app.bridge.call_trio(waits.set))
    async with app.runtime():
        assert (await play(app, "call look wait", stop_at="c-wait", after=waits)).status == "canceled"
        await play(app, "two")
    assert [role for role, _ in SEEN[-1]] == ["user", "assistant", "tool", "tool", "user"]
    assert SEEN[-1][3][1] == "This call was stopped before it had a result."


async def test_a_stop_after_a_tool_keeps_the_call_and_the_partial_answer(app: AgentApp) -> None:
    async with app.runtime():
        assert (await play(app, "call look, endless", stop_at="word")).status == "canceled"
        await play(app, "two")
    assert [role for role, _ in SEEN[-1]] == ["user", "assistant", "tool", "assistant", "user"]
    # Agno puts the answer into the message with the call.
    assert not SEEN[-1][1][1]
    assert SEEN[-1][2][1] == "sky: blue"
    assert str(SEEN[-1][3][1]).startswith("word")


async def test_a_failed_model_keeps_the_question(app: AgentApp) -> None:
    async with app.runtime():
        end = await play(app, "fail")
        assert (end.status, end.error.code) == ("failed", "exception")
        await play(app, "two")
    assert SEEN[-1] == [("user", "fail"), ("assistant", "word "), ("user", "two")]


@pytest.mark.parametrize(
    ("name", "answer", "output"),
    [
        ("paint", "Yes", "sky: painted"),
        ("paint", "no, thanks", None),
        ("dye", "red", "sky: red"),
        ("dye", '{"color": "red"}', "sky: red"),
        ("measure", "5 m", "5 m"),
    ],
)
async def test_the_next_message_answers_what_a_run_waits_for(
    app: AgentApp, name: str, answer: str, output: str | None
) -> None:
    async with app.runtime():
        end = await play(app, f"call {name}")
        assert end.status == "completed"
        assert end.output[-1].content[0].data["interrupt"]["name"] == name
        assert (await play(app, answer)).status == "completed"
        last = SEEN[-1][-1]
        assert last[0] == "tool"
        assert last[1] == output or (output is None and "no, thanks" in str(last[1]))
        await play(app, "two")
    assert [role for role, _ in SEEN[-1]] == ["user", "assistant", "tool", "assistant", "user"]


async def test_a_stop_after_an_answer_leaves_no_open_call(app: AgentApp) -> None:
    async with app.runtime():
        await play(app, "call paint, call look, endless")
        assert (await play(app, "yes", stop_at="word")).status == "canceled"
        await play(app, "two")
    assert [role for role, _ in SEEN[-1]] == [
        *("user", "assistant", "tool"),
        *("assistant", "tool", "assistant", "user"),
    ]
    assert (SEEN[-1][2][1], SEEN[-1][4][1]) == ("sky: painted", "sky: blue")
    assert str(SEEN[-1][5][1]).startswith("word")


async def test_a_request_may_have_several_messages() -> None:
    app = AgentApp(agent=runnable("agent"))
    given = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
    async with app.runtime():
        await play(app, given)
        begun = [{"role": "user", "content": "endless"}, {"role": "assistant", "content": "Well, "}]
        await play(app, begun, stop_at="word")
        await play(app, "two")
    assert SEEN[0] == [("user", "user"), ("assistant", "assistant"), ("user", "user")]
    assert [role for role, _ in SEEN[-1]][4:] == ["user", "assistant", "assistant", "user"]
    assert str(SEEN[-1][6][1]).startswith("word")


async def test_state_is_json_and_the_variables_of_a_session_are_kept() -> None:
    async def count(run_context: RunContext, what: str) -> str:
        """Count."""
        run_context.session_state["count"] += 1  # type: ignore[index]
        return f"{run_context.session_state['count']}"  # type: ignore[index]

    app = AgentApp(agent=Agent(model=Scripted(), tools=[count], session_state={"count": 0}))
    async with app.runtime():
        await play(app, "call count")
        await play(app, "call count")
        assert SEEN[-1][-1] == ("tool", "2")
        await play(app, "call count", user_id="v")
        assert SEEN[-1][-1] == ("tool", "1")
        state = await app.state.session_service.load_modules("u", "s")
    assert json.loads(json.dumps(state)) == state


async def test_copies_share_the_model_and_no_memory() -> None:
    manager = MemoryManager()
    agent = Agent(model=Scripted(), memory_manager=manager)
    adapter = adapter_of("agno")
    one, two = (adapter.open_agent(agent, None, user_id="u", session_id="s") for _ in range(2))
    one, two = one._agent, two._agent  # type: ignore[attr-defined]
    assert one.model is two.model is agent.model
    assert one.db is not two.db
    assert one.id == two.id == agent.id
    one.initialize_agent()
    assert one.memory_manager.db is one.db
    assert (manager.db, two.memory_manager.db) == (None, None)


async def test_a_stopped_run_can_be_told_from_others_in_a_db_of_its_own() -> None:
    db = InMemoryDb()
    app = AgentApp(agent=Agent(model=Scripted(), db=db))
    async with app.runtime():
        await play(app, "endless", stop_at="word")
    [run] = db.get_session('["u", "s"]').runs  # type: ignore[union-attr]
    assert (run.status, run.metadata) == ("COMPLETED", {"ended_as": "CANCELLED"})


async def test_fifty_chats_stopped_at_once() -> None:
    app = AgentApp(agent=runnable("agent"))
    ends: list[str] = []

    async def chat(number: int) -> None:
        ends.append((await play(app, "endless", stop_at="word", session_id=str(number))).status)

    async with app.runtime():
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(chat, number)
        SEEN.clear()
        await play(app, "two", session_id="49")
    assert ends == ["canceled"] * 50
    assert [role for role, _ in SEEN[-1]] == ["user", "assistant", "user"]


class Uncopied(Agent):
    def deep_copy(self, *, update: dict[str, Any] | None = None) -> Agent:
        return self


class Fixed(Agent):
    def __init__(self, wish: str, **options: Any) -> None:
        super().__init__(model=Scripted())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Workflow(name="W"), "must be an Agent or a Team of Agno, not a Workflow"),
        (Scripted(), "must be an Agent or a Team of Agno, not a Scripted|must be a function or an agent"),
        (Uncopied(model=Scripted()), "returned the agent itself; make the agent in a handler"),
        (Fixed("x"), "failed .*wish.*; make the agent in a handler"),
    ],
    ids=["workflow", "model", "no copy", "no arguments"],
)
def test_what_cannot_be_copied_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        AgentApp(agent=wrong)
