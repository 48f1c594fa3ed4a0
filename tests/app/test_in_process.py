"""Queries and stops without a server: stream_query, stop_chat (DESIGN, section 2)."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from trio_agentapp import AgentApp, AgentAppError, AgentRequest, Message, RunState
from trio_agentapp.errors import SessionBusy, ValidationError


def make_app(**options: Any) -> tuple[AgentApp, list[str]]:
    app = AgentApp(**options)
    seen: list[str] = []

    @app.query()
    async def chat(msgs: Any, request: AgentRequest, run: Any) -> AsyncIterator[str]:
        seen.append("begin")
        try:
            yield f"you said {msgs[-1].text}"
            if request.extra.get("endless") or request.model == "endless":
                while True:
                    yield "."
                    await trio.sleep(0.001)
        finally:
            async with run.cleanup():
                await trio.sleep(0.02)
                seen.append("cleaned")

    return app, seen


async def all_of(app: AgentApp, request: Any) -> list[Any]:
    with trio.fail_after(10):
        async with app.stream_query(request) as events:
            return [event async for event in events]


@pytest.mark.parametrize(
    "request_",
    [
        "hello",
        {"input": "hello"},
        {"input": [{"role": "user", "content": "hello"}]},
        AgentRequest(input="hello"),
        AgentRequest(input=[Message(role="user", content="hello")]),
    ],
)
async def test_every_kind_of_request(request_: Any) -> None:
    app, seen = make_app()
    events = await all_of(app, request_)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[-1].status, events[-1].terminal) == ("completed", True)
    assert events[-1].output[0].content[0].text == "you said hello"
    assert seen == ["begin", "cleaned"]


@pytest.mark.parametrize(
    "request_", [5, None, [], {}, {"input": [1]}, {"input": [], "session_id": 5}, AgentRequest(input=[], id="x")]
)
async def test_what_is_no_request(request_: Any) -> None:
    app, seen = make_app()
    with pytest.raises(ValidationError) as caught:
        await all_of(app, request_)
    assert caught.value.errors
    assert seen == []


async def test_leaving_early_stops_the_run() -> None:
    app, seen = make_app()
    async with app.runtime():
        async with app.stream_query({"input": "x", "endless": True, "id": "early-run"}) as events:
            while (await anext(events)).sequence_number < 5:
                pass
            if hasattr(events, "aclose"):
                await events.aclose()
        with trio.fail_after(5):
            while app._open().registry.statistics().live:
                await trio.sleep(0.005)
        record = await app._runtime.backend.run_status("early-run")
    assert seen == ["begin", "cleaned"]
    assert record is not None
    assert (record.state, record.reason) == (RunState.STOPPED, "disconnected")


async def test_a_break_leaves_nothing_to_complain_of() -> None:
    """Trio warns of async generators that the garbage collector finds; here a warning is an error."""
    app, _ = make_app()
    async with app.runtime():
        async with app.stream_query({"input": "x", "endless": True}) as events:
            async for event in events:
                if event.sequence_number == 5:
                    break
        del events
        gc.collect()


async def test_an_error_in_the_block_stops_the_run() -> None:
    app, seen = make_app()

    async def fail() -> None:
        async with app.stream_query({"input": "x", "endless": True}) as events:
            await anext(events)
            raise KeyError("mine")

    with pytest.raises(BaseException) as caught:  # noqa: PT011
        await fail()
    assert type(caught.value) is KeyError, "it comes out as it went in"
    assert seen in (["begin", "cleaned"], [])


async def test_the_app_opens_for_the_block_and_no_longer() -> None:
    app, _ = make_app()
    async with app.stream_query("x") as events:
        async for _ in events:
            pass
        assert app._open().registry
    with pytest.raises(RuntimeError, match="not running"):
        app._open()


async def test_several_in_one_opened_app() -> None:
    app, seen = make_app()
    async with app.runtime(), trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(all_of, app, f"number {number}")
    assert seen.count("begin") == seen.count("cleaned") == 10


async def test_one_run_per_session_here_too() -> None:
    app, _ = make_app()
    who = {"user_id": "u", "session_id": "s"}
    async with app.runtime():
        async with app.stream_query({"input": "x", "endless": True, **who, "id": "first-run"}) as events:
            event = await anext(events)
            assert event.id == "response_first-run"
            with pytest.raises(SessionBusy) as caught:
                await all_of(app, {"input": "y", **who})
            assert caught.value.active_run_id == "first-run"


async def test_receipts_of_stop_chat() -> None:
    app, seen = make_app()
    who = {"user_id": "u", "session_id": "s"}
    async with app.runtime():
        idle = await app.stop_chat("u", "s")
        assert (idle.accepted, idle.stopped, idle.run_id, idle.state) == (False, False, None, RunState.IDLE)
        async with app.stream_query({"input": "x", "endless": True, **who}) as events:
            first = await anext(events)
            run_id = first.id.removeprefix("response_")
            at_once = await app.stop_chat(**who)
            assert (at_once.accepted, at_once.stopped, at_once.run_id) == (True, False, run_id)
            assert at_once.state is RunState.RUNNING
            receipt = await app.stop_chat(**who, wait=True)
            assert (receipt.accepted, receipt.stopped, receipt.state) == (True, True, RunState.STOPPED)
            assert receipt.node == app.node_id
            assert receipt.latency_ms > 0
            rest = [event async for event in events]
            assert rest[-1].status == "canceled"
            assert rest[-1].error.code == "stopped"
        late = await app.stop_chat(**who, run_id=run_id)
        assert (late.accepted, late.stopped, late.state) == (False, True, RunState.STOPPED)
        foreign = await app.stop_chat("other", "s", run_id=run_id)
        assert foreign.stopped is False
        assert foreign.state is not RunState.STOPPED
    assert seen.count("cleaned") <= 1


async def test_stop_chat_with_wait_tells_of_the_cleanup() -> None:
    app, seen = make_app()
    async with app.runtime(), app.stream_query({"input": "x", "endless": True, "session_id": "s"}) as events:
        while (await anext(events)).sequence_number < 4:
            pass
        receipt = await app.stop_chat("s", "s", wait=True)
        assert seen == ["begin", "cleaned"]
        assert receipt.cleanup.value == "done"
        assert [event async for event in events][-1].status == "canceled"


async def test_a_stop_before_the_run() -> None:
    app, seen = make_app()
    async with app.runtime():
        receipt = await app.stop_chat("u", "s", run_id="early-run")
        assert (receipt.accepted, receipt.stopped, receipt.run_id) == (True, False, "early-run")
        events = await all_of(app, {"input": "x", "user_id": "u", "session_id": "s", "id": "early-run"})
    assert events[-1].status == "canceled"
    assert seen == []


async def test_stop_chat_needs_a_running_app() -> None:
    app, _ = make_app()
    with pytest.raises(RuntimeError, match="not running"):
        await app.stop_chat("u", "s")


async def test_no_handler() -> None:
    with pytest.raises(AgentAppError, match="query"):
        await all_of(AgentApp(), "x")


async def test_a_handler_may_query_by_itself() -> None:
    """`self.stream_query`: another run, of another session."""
    app = AgentApp()

    @app.query()
    async def chat(self: Any, msgs: Any) -> AsyncIterator[str]:
        if msgs[-1].text == "outer":
            async with self.stream_query("inner") as events:
                async for event in events:
                    if event.object == "content" and event.delta:
                        yield f"<{event.text}>"
        else:
            yield "from inside"

    events = await all_of(app, "outer")
    assert events[-1].output[0].content[0].text == "<from inside>"


async def test_the_state_survives_a_stop() -> None:
    """A save in a plain `finally`, without ceremony."""
    app = AgentApp()

    @app.query()
    async def chat(request: AgentRequest) -> AsyncIterator[str]:
        words = 0
        try:
            while True:
                words += 1
                yield "word "
                await trio.sleep(0.001)
        finally:
            await app.state.state_service.save(request.user_id, request.session_id, {"words": words})

    async with app.runtime():
        async with app.stream_query({"input": "x", "session_id": "s", "user_id": "u"}) as events:
            async for event in events:
                if event.sequence_number == 10:
                    await app.stop_chat("u", "s")
        state = await app.state.state_service.load("u", "s")
    assert state is not None
    assert state["words"] >= 7
