"""What the next turn of a session finds: the history that the runtime keeps, and what a rollback leaves of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_agentapp import AgentApp, Message, Run
from trio_agentapp.abc import SessionStore
from trio_agentapp.protocol.codec import encode_event
from trio_agentapp.protocol.events import ContentEvent, Event, MessageEvent

WHO = {"user_id": "ann", "session_id": "s1"}


def words(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]


async def played(app: AgentApp, text: str, **more: Any) -> list[Event]:
    events = []
    async with app.stream_query({"input": text, **WHO, **more}) as stream:
        async for event in stream:
            events.append(event)
    return events


def folded(events: list[Event]) -> list[str]:
    """What a client has read of each message, from the deltas alone."""
    order = [event.id for event in events if isinstance(event, MessageEvent) and event.status == "in_progress"]
    texts = dict.fromkeys(order, "")
    for event in events:
        if isinstance(event, ContentEvent) and event.delta:
            texts[event.msg_id] += event.text
    return [texts[id] for id in order]


async def test_the_next_turn_finds_what_was_said() -> None:
    app = AgentApp()
    seen = []

    @app.query()
    async def chat(msgs, run: Run):
        seen.append(words(await app.state.session_service.history(run.user_id, run.session_id)))
        msgs.clear()  # the handler's own list
        yield "a "
        yield "b"

    async with app.runtime():
        await played(app, "one")
        await played(app, "two")
    assert seen == [[], [("user", "one"), ("assistant", "a b")]]


async def test_the_history_is_there_before_anybody_sees_the_end() -> None:
    app = AgentApp(agent=lambda: "done")
    async with app.runtime(), app.stream_query({"input": "x", **WHO}) as events:
        async for event in events:
            if event.status == "completed" and event.object == "response":
                assert len(await app.state.session_service.history("ann", "s1")) == 2


async def test_after_a_stop_the_history_is_what_clients_saw() -> None:
    app = AgentApp()

    @app.query()
    async def chat():
        yield Message.tool_call("clock", {"zone": "UTC"}, call_id="call-1")
        yield "the time "
        yield "is"
        await trio.sleep_forever()

    events: list[Event] = []
    async with app.runtime():
        async with app.stream_query({"input": "x", **WHO}) as stream:
            async for event in stream:
                events.append(event)
                if isinstance(event, ContentEvent) and event.text == "is":
                    await app.stop_chat("ann", "s1")
        history = await app.state.session_service.history("ann", "s1")
    assert events[-1].status == "canceled"
    asked, call, said, answer = history
    assert asked.text == "x"
    assert said.text == folded(events)[1] == "the time is"
    # An open tool call is closed, so that the transcript is valid as the next turn's input.
    assert answer.content[0].data == {"call_id": "call-1", "output": "interrupted"}
    shown = [message.id for message in events[-1].output]
    assert [message.id for message in (call, said, answer)] == shown
    texts = [part.text for message in events[-1].output for part in message.content if part.type == "text"]
    assert texts == ["the time is"]
    assert b"the time is" in encode_event(events[-1])


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_rollback_undoes_what_the_interrupted_run_saved(strategy: str) -> None:
    app = AgentApp()

    @app.query()
    async def chat(msgs, run: Run):
        name = msgs[-1].text
        states = app.state.state_service
        before = await states.load(run.user_id, run.session_id) or {"turns": []}
        yield ",".join(before["turns"])
        await states.save(run.user_id, run.session_id, {"turns": [*before["turns"], name]})
        if name == "slow":
            await trio.sleep_forever()

    async with app.runtime(), trio.open_nursery() as nursery:
        await played(app, "first")
        nursery.start_soon(played, app, "slow")
        while (await app.state.state_service.load("ann", "s1"))["turns"] != ["first", "slow"]:
            await trio.sleep(0.01)
        events = await played(app, "third", multitask_strategy=strategy)
        state = await app.state.state_service.load("ann", "s1")
        asked = [
            text for role, text in words(await app.state.session_service.history("ann", "s1")) if role == "user"
        ]
    if strategy == "rollback":
        assert folded(events) == ["first"]
        assert state == {"turns": ["first", "third"]}
        assert asked == ["first", "third"]
    else:
        assert folded(events) == ["first,slow"]
        assert state == {"turns": ["first", "slow", "third"]}
        assert asked == ["first", "slow", "third"]


async def test_a_run_that_ended_by_itself_is_not_undone() -> None:
    """The second request came while it ran, and its stop too late: there was nothing to interrupt."""
    app = AgentApp(multitask_strategy="rollback")
    finishing = trio.Event()

    @app.query()
    async def chat(msgs, run: Run):
        await app.state.state_service.save(run.user_id, run.session_id, {"last": msgs[-1].text})
        if msgs[-1].text == "first":

            async def linger() -> None:
                finishing.set()
                await trio.sleep(0.3)

            run.on_exit(linger)
        yield "ok"

    async with app.runtime(), trio.open_nursery() as nursery:
        nursery.start_soon(played, app, "first")
        await finishing.wait()
        await played(app, "second")
        history = await app.state.session_service.history("ann", "s1")
    assert [text for role, text in words(history) if role == "user"] == ["first", "second"]


async def test_a_history_that_fails_does_not_keep_a_run_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    app = AgentApp(agent=lambda: "done")

    class Broken(type(app.state.session_service)):  # type: ignore[misc]
        async def append(self, *args: Any, **options: Any) -> None:
            raise OSError("the disk is full")

    async with app.runtime():
        app.state.session_service = Broken()
        assert isinstance(app.state.session_service, SessionStore)
        assert (await played(app, "x"))[-1].status == "completed"
        assert (await played(app, "x"))[-1].status == "completed"
    assert "could not be added to the session's history" in caplog.text
