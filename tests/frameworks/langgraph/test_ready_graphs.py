"""Ready graphs, `AgentApp(agent=graph)`: the state of each session, also after a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

pytest.importorskip("langgraph", reason="it has an environment of its own: make test-frameworks")

from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import MessagesState, StateGraph
from langgraph.types import interrupt

from trio_agentapp import AgentApp
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.frameworks.langgraph import StoreSaver
from trio_agentapp.stores import MAX_STATE_BYTES

SEEN: list[list[tuple[str, str]]] = []
"""What the model was given, call by call."""


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


class Model(BaseChatModel):
    """Says how many messages it was given; "endless" makes it talk without end, "call NAME" call a tool."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Model:
        return self

    def _generate(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    async def _astream(self, messages: list[BaseMessage], *args: Any, **options: Any) -> AsyncIterator[Any]:
        SEEN.append([(message.type, message.text) for message in messages])
        last = messages[-1]
        if last.text.startswith("call ") and not isinstance(last, ToolMessage):
            part = {"name": last.text[5:], "args": "{}", "id": "c1", "index": 0}
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[part]))
            return
        for word in ["word "] * (10_000 if last.text.startswith("endless") else 2):
            yield ChatGenerationChunk(message=AIMessageChunk(word))
            await asyncio.sleep(0.01)


async def wait() -> str:
    """Wait for ever."""
    get_stream_writer()({"waits": True})
    await asyncio.sleep(3600)
    return "never"


async def ask() -> str:
    """Ask a person."""
    return str(interrupt("Which colour?"))


def graph(**options: Any) -> Any:
    return create_agent(Model(), [wait, ask], **options)


@pytest.fixture(params=["stored", "own checkpointer", "checkpointer of the app"])
def app(request: pytest.FixtureRequest) -> AgentApp:
    if request.param == "checkpointer of the app":
        shared: dict[str, Any] = {}
        app = AgentApp(agent=graph(checkpointer=StoreSaver(Later(shared))))
        shared["app"] = app
        return app
    return AgentApp(agent=graph(checkpointer=InMemorySaver() if request.param == "own checkpointer" else None))


class Later:
    """An app that is made after its checkpointer."""

    def __init__(self, shared: dict[str, Any]) -> None:
        self._shared = shared

    @property
    def state(self) -> Any:
        return self._shared["app"].state


async def play(app: AgentApp, text: str, *, stop_at: str = "", **ids: str) -> Any:
    ids = {"user_id": "u", "session_id": "s", **ids}
    with trio.fail_after(30):
        async with app.stream_query({"input": text, **ids}) as events:
            async for event in events:
                shown = getattr(event, "text", None) or str(getattr(event, "data", ""))
                if stop_at and stop_at in shown:
                    stop_at = ""
                    await app.stop_chat(ids["user_id"], ids["session_id"])
    return event


async def test_the_next_turn_continues_the_conversation(app: AgentApp) -> None:
    async with app.runtime():
        assert (await play(app, "one")).status == "completed"
        await play(app, "two")
    assert SEEN[-1] == [("human", "one"), ("ai", "word word "), ("human", "two")]


async def test_users_and_sessions_do_not_share_a_conversation(app: AgentApp) -> None:
    async with app.runtime():
        async with trio.open_nursery() as nursery:
            for user, session in (("u", "s"), ("u/s", "t"), ("u", "s/t"), ("v", "s")):
                nursery.start_soon(lambda u=user, s=session: play(app, f"of {u} {s}", user_id=u, session_id=s))
        for user, session in (("u", "s"), ("u/s", "t"), ("u", "s/t"), ("v", "s")):
            await play(app, "again", user_id=user, session_id=session)
            assert SEEN[-1] == [("human", f"of {user} {session}"), ("ai", "word word "), ("human", "again")]


async def test_the_partial_answer_of_a_stopped_run_is_kept(app: AgentApp) -> None:
    async with app.runtime():
        end = await play(app, "endless", stop_at="word")
        assert end.status == "canceled"
        await play(app, "two")
        await play(app, "three")
    kinds = [kind for kind, _ in SEEN[-2]]
    assert kinds == ["human", "ai", "human"]
    assert SEEN[-2][1][1].startswith("word")
    assert [kind for kind, _ in SEEN[-1]] == [*kinds, "ai", "human"]


async def test_a_stop_in_a_tool_leaves_no_open_call(app: AgentApp) -> None:
    async with app.runtime():
        end = await play(app, "call wait", stop_at="waits")
        assert end.status == "canceled"
        await play(app, "two")
    assert [kind for kind, _ in SEEN[-1]] == ["human", "ai", "tool", "human"]
    assert "stopped" in SEEN[-1][2][1]


async def test_the_next_message_answers_an_interrupt(app: AgentApp) -> None:
    async with app.runtime():
        end = await play(app, "call ask")
        assert "Which colour?" in str(end.output[-1].content)
        await play(app, "red")
    assert SEEN[-1][-1] == ("tool", "red")


@pytest.mark.parametrize("app", ["stored", "checkpointer of the app"], indirect=True)
async def test_a_state_beyond_the_limit_is_not_saved_and_the_session_goes_on(
    app: AgentApp,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with app.runtime():
        await play(app, "one")
        for _ in range(2):
            end = await play(app, "x" * MAX_STATE_BYTES)
            assert end.status == "completed"
            answer, told = sorted(end.output, key=lambda message: message.type == "error")
            assert answer.content[0].text == "word word "
            assert (told.type, told.code) == ("error", "state_too_large")
            assert "Begin a new session." in told.message
            assert len(SEEN[-1]) == 3
        stopped = await play(app, "endless " + "x" * MAX_STATE_BYTES, stop_at="word")
        assert stopped.status == "canceled"
        assert len((await play(app, "two")).output) == 1
    assert SEEN[-1] == [("human", "one"), ("ai", "word word "), ("human", "two")]
    logged = [record.getMessage() for record in caplog.records if "not saved" in record.getMessage()]
    assert len(logged) == 3
    assert "session 's'" in logged[0]
    assert f"at most {MAX_STATE_BYTES:,} are kept" in logged[0]


@pytest.mark.parametrize("wrong", [StateGraph(MessagesState), Model()])
def test_what_is_no_compiled_graph_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"compile|must be a function or an agent"):
        AgentApp(agent=wrong)


async def test_a_failed_model_keeps_the_question(app: AgentApp, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*args: Any, **options: Any) -> AsyncIterator[Any]:
        yield ChatGenerationChunk(message=AIMessageChunk("half "))
        raise RuntimeError("the provider is down")

    async with app.runtime():
        with monkeypatch.context() as patch:
            patch.setattr(Model, "_astream", failing)
            assert (await play(app, "one")).status == "failed"
        await play(app, "two")
    assert SEEN[-1] == [("human", "one"), ("ai", "half "), ("human", "two")]


async def test_a_handler_keeps_its_threads_in_the_stores_of_the_app(tmp_path: Path) -> None:
    """Also for another process, and with one `thread_id` for all."""

    def make() -> AgentApp:
        app = AgentApp(state_url=f"sqlite:///{tmp_path}/states.db")
        agent = graph(checkpointer=StoreSaver(app))

        @app.query(framework="langgraph")
        async def chat(msgs: Any) -> AsyncIterator[Any]:
            config: Any = {"configurable": {"thread_id": "the thread"}}
            async for item in agent.astream({"messages": msgs}, config, stream_mode="messages"):
                yield item

        return app

    app = make()
    async with app.runtime():
        await play(app, "one")
        await play(app, "of another user", user_id="v")
    app = make()
    async with app.runtime():
        await play(app, "two")
        assert SEEN[-1] == [("human", "one"), ("ai", "word word "), ("human", "two")]
        await play(app, "three", user_id="v")
        assert SEEN[-1] == [("human", "of another user"), ("ai", "word word "), ("human", "three")]


async def test_threads_are_of_a_run() -> None:
    saver = StoreSaver(AgentApp())
    with pytest.raises(RuntimeError, match="in handlers only"):
        saver.aget_tuple({"configurable": {"thread_id": "t"}}).send(None)
