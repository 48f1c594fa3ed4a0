"""The routes of runs as clients meet them: idempotency, attaching, lists in pages, and what is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from trio_agentapp import AgentApp, AgentRequest
from trio_agentapp.errors import BackendUnavailable
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.testing import UnrulyBackend

from ..events.toy_stores import ToyEventStore
from .conftest import Served, chat_body, post


def counting_app(**options: Any) -> tuple[AgentApp, list[str]]:
    app, started = AgentApp(**options), []

    @app.query()
    async def chat(self: Any, msgs: Any, request: AgentRequest, run: Any) -> AsyncIterator[str]:
        started.append(run.run_id)
        yield f"you said {msgs[-1].text}"
        if request.extra.get("seconds"):
            await trio.sleep(request.extra["seconds"])

    return app, started


def key(name: str = "key-1") -> dict[str, Any]:
    return {"headers": {"Idempotency-Key": name}}


async def get(client: Any, path: str, **options: Any) -> tuple[int, Any]:
    with trio.fail_after(10):
        response = await client.get(path, **options)
        data = await response.get_data()
        return response.status_code, json.loads(data) if data else None


# Idempotency.


async def test_the_same_key_is_the_same_run(served: Served) -> None:
    app, started = counting_app()
    async with served(app) as client:
        first = await post(client, "/process", chat_body(), **key())
        second = await post(client, "/process", chat_body(), **key())
        assert first[0] == 200
        assert first == second
        assert len(started) == 1
        other = await post(client, "/process", chat_body(), **key("key-2"))
        assert other[1]["id"] != first[1]["id"]
        assert len(started) == 2


async def test_the_same_key_with_another_body_is_a_conflict(served: Served) -> None:
    app, started = counting_app()
    async with served(app) as client:
        await post(client, "/process", chat_body(), **key())
        status, body = await post(client, "/process", chat_body("other"), **key())
        assert (status, body["code"], body["retryable"]) == (409, "idempotency_conflict", False)
        assert len(started) == 1


async def test_users_have_their_own_keys(served: Served) -> None:
    app, started = counting_app()
    async with served(app) as client:
        for user in ("ann", "eve"):
            status, _ = await post(client, "/process", chat_body(user_id=user), **key())
            assert status == 200
    assert len(started) == 2


@pytest.mark.parametrize("session", [{}, {"session_id": "s", "user_id": "u"}])
async def test_the_same_key_twice_at_once_is_one_run(served: Served, session: dict[str, str]) -> None:
    backend = UnrulyBackend(LocalInterruptBackend())
    app, started = counting_app(interrupt_backend=backend)
    answers: list[tuple[int, Any]] = []
    # All requests have asked for the key before any has started.
    claimed = backend.hold("claim")
    async with served(app) as client:

        async def ask() -> None:
            answers.append(await post(client, "/process", chat_body(seconds=0.2, **session), **key()))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            while backend.calls["pin"] < 3:
                await trio.sleep(0.01)
            claimed.set()
        answers.append(await post(client, "/process", chat_body(seconds=0.2, **session), **key()))
    assert [status for status, _ in answers] == [200] * 4
    assert {body["id"] for _, body in answers} == {f"response_{started[0]}"}
    assert len(started) == 1


async def test_what_was_not_started_may_be_tried_again_with_the_same_key(served: Served) -> None:
    backend = UnrulyBackend(LocalInterruptBackend())
    app, started = counting_app(interrupt_backend=backend)
    async with served(app) as client:
        backend.fail("claim", BackendUnavailable("down", retry_after=1.0))
        status, body = await post(client, "/process", chat_body(), **key())
        assert (status, body["code"]) == (503, "backend_unavailable")
        assert (await post(client, "/process", chat_body(), **key()))[0] == 200
    assert len(started) == 1


async def test_a_busy_session_does_not_use_up_the_key(served: Served) -> None:
    app, started = counting_app()
    busy = {"session_id": "s", "user_id": "u"}
    async with served(app) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, client, "/process", chat_body(seconds=0.3, **busy))
            while not started:
                await trio.sleep(0.01)
            status, body = await post(client, "/process", chat_body(**busy), **key())
            assert (status, body["code"]) == (409, "session_busy")
        assert (await post(client, "/process", chat_body(**busy), **key()))[0] == 200
    assert len(started) == 2


async def test_a_client_that_left_before_the_start_may_come_back_with_its_key(served: Served) -> None:
    backend = UnrulyBackend(LocalInterruptBackend())
    app, started = counting_app(interrupt_backend=backend)
    async with served(app) as client:
        backend.hold("claim", after=True)
        with trio.move_on_after(0.2):
            await client.post("/process", json=chat_body(), **key())
        status, body = await post(client, "/process", chat_body(), **key())
        assert (status, body.get("status")) == (200, "completed")
    assert len(started) == 1


async def test_bad_keys(served: Served) -> None:
    app, started = counting_app()
    async with served(app) as client:
        for name in ("", "x" * 257, "a\x01b"):
            status, body = await post(client, "/process", chat_body(), **key(name))
            assert (status, body["code"]) == (422, "validation_error")
            assert body["errors"][0]["loc"] == "header.Idempotency-Key"
    assert started == []


# Attaching.


async def test_attaching_to_an_ended_run_in_a_store_of_the_user(served: Served) -> None:
    store = ToyEventStore()
    app, started = counting_app(event_store=store)
    async with served(app) as client:
        await post(client, "/process", chat_body(user_id="ann"))
        [((key, run_id), events)] = store.events.items()
        assert (key.user_id, [run_id]) == ("ann", started)
        response = await client.get(f"/runs/{run_id}/stream")
        text = (await response.get_data()).decode()
        assert text.count("\nid: ") == len(events)
        store.events.clear()
        status, body = await get(client, f"/runs/{run_id}/stream")
        assert (status, body["code"]) == (410, "stream_expired")


async def test_attaching_to_an_ended_run(served: Served) -> None:
    app, started = counting_app()
    async with served(app) as client:
        _, answer = await post(client, "/process", chat_body(user_id="ann"))
        [run_id] = started
        response = await client.get(f"/runs/{run_id}/stream")
        assert response.status_code == 200
        assert (response.headers["X-Run-Id"], response.headers["Location"]) == (run_id, f"/runs/{run_id}")
        text = (await response.get_data()).decode()
        ids = [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
        assert ids == list(range(len(ids)))
        last = ids[-1]
        rest = await client.get(f"/runs/{run_id}/stream", headers={"Last-Event-ID": str(last - 1)})
        assert (await rest.get_data()).decode().count("id: ") == 1
        for over in ({"headers": {"Last-Event-ID": str(last)}}, {"query_string": {"starting_after": last}}):
            assert (await client.get(f"/runs/{run_id}/stream", **over)).status_code == 204
        # The query is the more exact one.
        both = await client.get(
            f"/runs/{run_id}/stream?starting_after={last - 1}", headers={"Last-Event-ID": str(last)}
        )
        assert both.status_code == 200
        await both.get_data()
        assert await get(client, f"/runs/{run_id}/wait") == (200, answer)


@pytest.mark.parametrize("path", ["/runs/{}", "/runs/{}/stream", "/runs/{}/wait"])
async def test_unknown_and_foreign_runs_are_alike(served: Served, path: str) -> None:
    app, started = counting_app()
    async with served(app) as client:
        await post(client, "/process", chat_body(user_id="ann"))
        answers = []
        for run_id in ("unknown-run", started[0]):
            status, body = await get(client, path.format(run_id) + "?user_id=eve")
            answers.append((status, {**body, "instance": "", "request_id": ""}))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404


async def test_input_for_a_run_that_does_not_run(served: Served) -> None:
    app, started = counting_app()
    message = {"role": "user", "content": "hi"}
    async with served(app) as client:
        await post(client, "/process", chat_body())
        status, body = await post(client, f"/runs/{started[0]}/input", message)
        assert (status, body["code"]) == (409, "run_ended")
        status, body = await post(client, "/runs/unknown-run/input", message)
        assert (status, body["code"]) == (404, "run_not_found")
        status, body = await post(client, f"/runs/{started[0]}/input", {"role": "nobody"})
        assert (status, body["code"]) == (422, "validation_error")


# Lists.


async def pages(client: Any, query: str) -> list[list[str]]:
    found, cursor = [], ""
    while True:
        status, body = await get(client, f"/runs?{query}{cursor}")
        assert status == 200, body
        found.append([run["run_id"] for run in body["runs"]])
        if body["cursor"] is None:
            return found
        cursor = f"&cursor={body['cursor']}"


async def test_runs_in_pages_the_youngest_first(served: Served) -> None:
    app, started = counting_app()
    async with served(app) as client:
        for number in range(7):
            await post(client, "/process", chat_body(user_id="ann", session_id=f"s{number % 2}"))
        await post(client, "/process", chat_body(user_id="eve"))
        anns, young = started[:7], started[6::-1]
        assert await pages(client, "user_id=ann&limit=3") == [young[:3], young[3:6], young[6:]]
        assert await pages(client, "user_id=ann&limit=7") == [young]
        assert await pages(client, "user_id=ann") == [young]
        odd = [run_id for run_id in young if run_id in anns[1::2]]
        assert await pages(client, "user_id=ann&session_id=s1&limit=2") == [odd[:2], odd[2:]]
        assert await pages(client, "user_id=ann&status=STOPPED&limit=2") == [[]]
        assert await pages(client, "user_id=ann&status=FINISHED&limit=100") == [young]
        assert await pages(client, "user_id=nobody") == [[]]


BAD_QUERIES_OF_LISTS: list[Any] = [
    ("", "query.user_id"),
    ("user_id=", "query.user_id"),
    ("user_id=" + "x" * 257, "query.user_id"),
    ("user_id=ann&session_id=%00", "query.session_id"),
    ("user_id=ann&limit=0", "query.limit"),
    ("user_id=ann&limit=101", "query.limit"),
    ("user_id=ann&limit=-1", "query.limit"),
    ("user_id=ann&limit=1.5", "query.limit"),
    ("user_id=ann&limit=%D9%A3", "query.limit"),
    ("user_id=ann&limit=" + "9" * 5000, "query.limit"),
    ("user_id=ann&limit=", "query.limit"),
    ("user_id=ann&status=running", "query.status"),
    ("user_id=ann&status=", "query.status"),
    ("user_id=ann&cursor=x", "query.cursor"),
    ("user_id=ann&cursor=" + "x" * 65, "query.cursor"),
]


async def test_bad_queries_of_lists(served: Served) -> None:
    app, _ = counting_app()
    async with served(app) as client:
        for query, loc in BAD_QUERIES_OF_LISTS:
            status, body = await get(client, f"/runs?{query}")
            assert (status, body["code"]) == (422, "validation_error")
            assert [fault["loc"] for fault in body["errors"]] == [loc]


BAD_CURSORS: list[Any] = [
    ({"headers": {"Last-Event-ID": "x"}}, "header.Last-Event-ID"),
    ({"headers": {"Last-Event-ID": "-2"}}, "header.Last-Event-ID"),
    ({"headers": {"Last-Event-ID": "1.0"}}, "header.Last-Event-ID"),
    ({"headers": {"Last-Event-ID": "9" * 40}}, "header.Last-Event-ID"),
    ({"query_string": {"starting_after": "-2"}}, "query.starting_after"),
    ({"query_string": {"starting_after": ""}}, "query.starting_after"),
    ({"query_string": {"starting_after": str(2**53 + 1)}}, "query.starting_after"),
    ({"query_string": {"user_id": ""}}, "query.user_id"),
]


async def test_bad_cursors(served: Served) -> None:
    app, started = counting_app()
    async with served(app) as client:
        await post(client, "/process", chat_body())
        for options, loc in BAD_CURSORS:
            status, body = await get(client, f"/runs/{started[0]}/stream", **options)
            assert (status, body["code"]) == (422, "validation_error")
            assert [fault["loc"] for fault in body["errors"]] == [loc]


BAD_SELECTIONS: list[Any] = [
    ({}, ["$"]),
    ([], ["$"]),
    (None, ["$"]),
    ({"run_ids": []}, ["$"]),
    ({"run_ids": ["unknown-run"], "status": "RUNNING"}, ["$"]),
    ({"run_ids": "unknown-run"}, ["$.run_ids"]),
    ({"run_ids": None}, ["$.run_ids", "$"]),
    ({"run_ids": ["x", 5, "unknown-run"]}, ["$.run_ids[0]", "$.run_ids[1]"]),
    ({"run_ids": ["unknown-run"] * 101}, ["$.run_ids"]),
    ({"status": "running"}, ["$.status"]),
    ({"status": []}, ["$.status"]),
    ({"status": "RUNNING", "user_id": 5}, ["$.user_id"]),
]


async def test_bad_selections(served: Served) -> None:
    app, _ = counting_app()
    async with served(app) as client:
        for body, locs in BAD_SELECTIONS:
            response = await client.post(
                "/runs/cancel", data=json.dumps(body), headers={"Content-Type": "application/json"}
            )
            answer = json.loads(await response.get_data())
            assert (response.status_code, answer["code"]) == (422, "validation_error")
            assert [fault["loc"] for fault in answer["errors"]] == locs


async def test_several_runs_are_stopped_together(served: Served) -> None:
    app, started = counting_app()
    async with served(app) as client, trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(
                post, client, "/process", chat_body(user_id="ann", session_id=f"s{number}", seconds=60)
            )
        while len(started) < 3:
            await trio.sleep(0.01)
        status, body = await post(
            client, "/runs/cancel", {"run_ids": [started[0], "unknown-run"], "user_id": "ann"}
        )
        assert status == 200
        assert [(each["run_id"], each["accepted"]) for each in body["results"]] == [
            (started[0], True),
            ("unknown-run", False),
        ]
        assert body["results"][1]["code"] == "run_not_found"
        status, body = await post(client, "/runs/cancel", {"status": "RUNNING", "user_id": "ann"})
        assert {each["run_id"] for each in body["results"]} >= set(started[1:])


async def test_a_stop_of_a_run_to_come_holds(served: Served) -> None:
    app, started = counting_app()
    async with served(app) as client:
        status, body = await post(client, "/runs/a-run-to-come/cancel")
        assert (status, body["code"]) == (404, "run_not_found")
        status, body = await post(client, "/process", chat_body(id="a-run-to-come"))
        assert (status, body["status"]) == (200, "canceled")
    assert started == []


async def test_a_queued_run_is_shown_as_one(served: Served) -> None:
    app, started = counting_app()
    session = {"session_id": "s", "user_id": "u"}
    async with served(app) as client, trio.open_nursery() as nursery:
        nursery.start_soon(post, client, "/process", chat_body(seconds=0.5, **session))
        while not started:
            await trio.sleep(0.01)
        queued = chat_body(id="run-in-line", multitask_strategy="enqueue", background=True, **session)
        del queued["stream"]
        status, body = await post(client, "/process", queued)
        assert (status, body["state"], body["phase"]) == (202, "IDLE", "queued")
        status, again = await post(client, "/process", queued)
        assert (status, again["run_id"]) == (202, "run-in-line")
        assert (await get(client, "/runs/run-in-line"))[1]["phase"] == "queued"
        status, body = await get(client, "/runs/run-in-line/wait")
        assert (status, body["status"]) == (200, "completed")
        assert len(started) == 2


class WithoutExtras(LocalInterruptBackend):
    """A user's backend without any of the optional parts."""

    def offers(self, capability: type[object]) -> bool:
        return False


async def test_what_a_backend_does_not_offer_is_said(served: Served) -> None:
    app, started = counting_app(interrupt_backend=WithoutExtras())
    async with served(app) as client:
        status, body = await get(client, "/runs?user_id=ann")
        assert (status, body["code"]) == (501, "not_offered")
        status, body = await post(client, "/process", chat_body(), **key())
        assert (status, body["code"]) == (501, "not_offered")
        assert (await post(client, "/process", chat_body()))[0] == 200
    assert len(started) == 1
