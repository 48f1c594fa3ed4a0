"""Tests of the stores of an app: which ones it has, when they are open, and the route of histories."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_agentapp import AgentApp, AgentAppError, AgentRequest, Message, Principal, SessionStore, StateStore
from trio_agentapp.stores import open_stores

from .conftest import Served, chat_body, post


class Agent:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        return {"heard": self.heard}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.heard = state["heard"]


def remembering_app(**options: Any) -> AgentApp:
    """As on the page of the product that this one replaces: load before, save in `finally`."""
    app = AgentApp(**options)

    @app.query()
    async def chat(self: Any, msgs: list[Message], request: AgentRequest, **kwargs: Any) -> AsyncIterator[str]:
        agent = Agent()
        await app.state.session.load_session_state(
            session_id=request.session_id, user_id=request.user_id, agent=agent
        )
        try:
            agent.heard.append(msgs[-1].text)
            yield " ".join(agent.heard)
            if msgs[-1].text == "wait":
                await trio.sleep_forever()
        finally:
            await app.state.session.save_session_state(
                session_id=request.session_id, user_id=request.user_id, agent=agent
            )

    return app


async def test_two_turns_of_a_session_remember(served: Served, tmp_path: Path) -> None:
    for url in (None, f"sqlite:///{tmp_path}/states.db"):
        app = remembering_app(state_url=url)
        async with served(app) as client:
            for text, said in (("one", "one"), ("two", "one two")):
                body = chat_body(text, session_id="s1", user_id="ann")
                status, answer = await post(client, "/process", body)
                assert status == 200
                assert answer["output"][0]["content"][0]["text"] == said
            _, answer = await post(client, "/process", chat_body("one", session_id="s2", user_id="ann"))
            assert answer["output"][0]["content"][0]["text"] == "one"


async def test_a_stopped_turn_is_remembered_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/states.db"
    app = remembering_app(state_url=url)
    request = {"input": "wait", "session_id": "s1", "user_id": "ann"}
    async with app.runtime(), app.stream_query(request) as events:
        async for event in events:
            if event.object == "content":
                await app.stop_chat("ann", "s1")
    again = remembering_app(state_url=url)
    async with again.stream_query({"input": "two", "session_id": "s1", "user_id": "ann"}) as events:
        texts = [event.text async for event in events if event.object == "content" and not event.delta]
    assert texts == ["wait two"]


async def test_concurrent_sessions_do_not_mix(tmp_path: Path) -> None:
    app = remembering_app(state_url=f"sqlite:///{tmp_path}/states.db")

    async def chat(session: str) -> None:
        for turn in range(3):
            request = {"input": f"{session}.{turn}", "session_id": session, "user_id": "ann"}
            async with app.stream_query(request) as events:
                texts = [event.text async for event in events if event.object == "content" and not event.delta]
        assert texts == [f"{session}.0 {session}.1 {session}.2"]

    async with app.runtime(), trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(chat, f"s{number}")


def test_which_stores_an_app_has(monkeypatch: pytest.MonkeyPatch) -> None:
    app = AgentApp()
    assert isinstance(app.state.state_service, StateStore)
    assert isinstance(app.state.session_service, SessionStore)
    assert app.state.session is app.state.session_service
    app.state.session_service = other = AgentApp().state.session_service
    assert app.state.session is other
    app.state.session = own = Agent()
    assert app.state.session is own
    monkeypatch.setenv("AGENTAPP_STATE_URL", "postgres://host")
    with pytest.raises(AgentAppError, match=r"^AGENTAPP_STATE_URL must be .*'postgres://host'"):
        AgentApp()


async def test_states_in_memory_beside_other_nodes(caplog: pytest.LogCaptureFixture) -> None:
    for options, warnings in (
        ({}, 0),
        ({"interrupt_redis_url": "redis://localhost"}, 1),
        ({"interrupt_redis_url": "redis://localhost", "state_url": "redis://localhost"}, 0),
    ):
        caplog.clear()
        with suppress(RuntimeError):  # Redis is not open, and need not be
            await AgentApp(**options).state.state_service.save("ann", "s1", {})
        assert len(caplog.records) == warnings


@pytest.mark.parametrize("url", [5, "", b"sqlite:///x"])
def test_a_url_that_is_no_text(url: Any) -> None:
    with pytest.raises(AgentAppError, match="state_url"):
        AgentApp(state_url=url)


async def test_stores_are_open_around_everything(tmp_path: Path) -> None:
    seen: list[Any] = []
    url = f"sqlite:///{tmp_path}/states.db"

    async def note(app: AgentApp, name: str) -> None:
        state = await app.state.state_service.load("ann", "s1") or {"steps": []}
        await app.state.state_service.save("ann", "s1", {"steps": [*state["steps"], name]})

    @asynccontextmanager
    async def lifespan(app: AgentApp) -> AsyncIterator[None]:
        await note(app, "lifespan in")
        yield
        await note(app, "lifespan out")

    app = AgentApp(
        state_url=url,
        lifespan=lifespan,
        before_start=lambda app: note(app, "before_start"),
        after_finish=lambda app: note(app, "after_finish"),
    )
    async with app.runtime():
        pass
    with pytest.raises(RuntimeError, match="the stores are not open"):
        await app.state.state_service.load("ann", "s1")
    async with open_stores(url) as stores:
        seen = (await stores.states.load("ann", "s1") or {})["steps"]
    assert seen == ["before_start", "lifespan in", "lifespan out", "after_finish"]


async def test_a_place_that_cannot_be_opened_stops_the_start(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match=r"startup\.failed: .*state_url: .*missing/x\.db")):
        async with served(AgentApp(state_url=f"sqlite:///{tmp_path}/missing/x.db")):
            pass
    assert "Traceback" not in caplog.text


# The route.


async def say(app: AgentApp, user: str, session: str, *words: str) -> None:
    for number, word in enumerate(words):
        turn = [Message(role="user", content=word), Message(content=word.upper())]
        await app.state.session_service.append(user, session, turn, run_id=f"run-{number}", token=number + 1)


async def get(client: Any, path: str, **options: Any) -> tuple[int, Any]:
    response = await client.get(path, **options)
    return response.status_code, await response.get_json()


def texts(body: Any) -> list[str]:
    return ["".join(part["text"] for part in message["content"]) for message in body["messages"]]


async def test_a_history(served: Served) -> None:
    app = remembering_app()
    async with served(app) as client:
        await say(app, "ann", "s1", "a", "b")
        await say(app, "a/b", "a/b", "x")
        status, body = await get(client, "/sessions/s1/history?user_id=ann")
        assert (status, texts(body)) == (200, ["a", "A", "b", "B"])
        assert (body["session_id"], body["user_id"]) == ("s1", "ann")
        assert body["messages"][0] == {
            "id": None,
            "type": "message",
            "role": "user",
            "content": [{"type": "text", "text": "a"}],
        }
        for limit, expected in (("1", ["B"]), ("3", ["A", "b", "B"]), ("1000", ["a", "A", "b", "B"])):
            assert texts((await get(client, f"/sessions/s1/history?user_id=ann&limit={limit}"))[1]) == expected
        # Nobody has used it; without a user it is the session's id.
        assert await get(client, "/sessions/s1/history") == (
            200,
            {"session_id": "s1", "user_id": "s1", "messages": []},
        )
        assert texts((await get(client, "/sessions/a%2Fb/history"))[1]) == ["x", "X"]
        # What it answers is a request's input.
        again = {**chat_body(session_id="s9"), "input": body["messages"]}
        assert (await post(client, "/process", again))[0] == 200


@pytest.mark.parametrize(
    ("path", "places"),
    [
        ("/sessions/s1/history?limit=-1", ["query.limit"]),
        ("/sessions/s1/history?limit=x", ["query.limit"]),
        ("/sessions/s1/history?limit=", ["query.limit"]),
        ("/sessions/s1/history?limit=1.5", ["query.limit"]),
        ("/sessions/s1/history?limit=%D9%A1", ["query.limit"]),
        ("/sessions/s1/history?limit=99999999999999999999", ["query.limit"]),
        ("/sessions/s1/history?limit=0", ["query.limit"]),
        ("/sessions/s1/history?limit=1001", ["query.limit"]),
        ("/sessions/s1/history?user_id=", ["query.user_id"]),
        ("/sessions/a%7Fb/history", ["path.session_id"]),
        (f"/sessions/{'x' * 257}/history", ["path.session_id"]),
    ],
)
async def test_a_history_that_cannot_be(served: Served, path: str, places: list[str]) -> None:
    async with served(remembering_app()) as client:
        status, body = await get(client, path)
        assert (status, body["code"]) == (422, "validation_error")
        assert [error["loc"] for error in body["errors"]] == places


async def test_whose_history(served: Served) -> None:
    """The principal's own; another's is not found, whether there is one or not."""
    app = remembering_app(authenticate=lambda request: Principal(request.headers["X-User"]))
    async with served(app) as client:
        await say(app, "ann", "s1", "a")
        await say(app, "bob", "s1", "b")
        headers = {"X-User": "ann"}
        assert texts((await get(client, "/sessions/s1/history", headers=headers))[1]) == ["a", "A"]
        assert texts((await get(client, "/sessions/s2/history", headers=headers))[1]) == []
        answers = [
            await get(client, f"/sessions/{session}/history?user_id=bob", headers=headers)
            for session in ("s1", "unused")
        ]
        for answer in answers:
            answer[1].pop("request_id")
            answer[1].pop("instance")
        assert answers[0] == answers[1]
        status, body = answers[0]
        assert (status, body["code"], body["detail"]) == (404, "run_not_found", "There is no such run.")
        assert (await client.get("/sessions/s1/history")).status_code == 401


async def test_the_hook_is_asked(served: Served) -> None:
    asked: list[tuple[Any, ...]] = []

    def authorize(principal: Any, *question: Any) -> bool:
        asked.append((principal and principal.user_id, *question))
        return question[1] != "eve"

    app = remembering_app(authorize=authorize, authenticate=lambda request: Principal("ann"))
    async with served(app) as client:
        assert (await get(client, "/sessions/s1/history?user_id=bob"))[0] == 200
        assert (await get(client, "/sessions/s1/history?user_id=eve"))[0] == 404
    assert asked == [("ann", "read", "bob", "s1", None), ("ann", "read", "eve", "s1", None)]


async def test_an_own_store_is_asked(served: Served) -> None:
    """What the lifespan puts there."""
    store = AgentApp().state.session_service

    @asynccontextmanager
    async def lifespan(app: AgentApp) -> AsyncIterator[None]:
        app.state.session_service = store
        yield

    app = remembering_app(lifespan=lifespan)
    async with served(app) as client:
        await say(app, "s1", "s1", "a")
        assert texts((await get(client, "/sessions/s1/history"))[1]) == ["a", "A"]
