"""AgentClient against real servers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from trio_agentapp import AgentClient, AgentRequest, errors
from trio_agentapp.client import EventStream, Retries

from .harness import Server, check_events, free_port, fresh, say


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


async def test_a_chat(server: Server) -> None:
    async with AgentClient(url(server)) as client:
        assert (await client.health())["status"] == "healthy"
        async with client.run("Hello", session_id=fresh(), user_id="u1") as events:
            seen = [event async for event in events]
        check_events(seen)
        assert events.response == seen[-1]
        assert events.text == "Hello World!"
        assert seen[-1]["id"] == f"response_{events.run_id}"
        assert seen[-1]["session_id"] == events.session_id
        record = await client.status(events.run_id)
        assert (record["state"], record["user_id"]) == ("FINISHED", "u1")


@pytest.mark.parametrize("as_object", [True, False])
async def test_requests_of_every_kind(server: Server, as_object: bool) -> None:
    session_id = fresh()
    async with AgentClient(url(server)) as client:
        request = {"input": say("Hey"), "do": "echo", "session_id": "another", "user_id": "u1"}
        if as_object:
            async with client.run(
                AgentRequest(input="Hey", session_id="another", user_id="u1", extra={"do": "echo"}),
                session_id=session_id,
            ) as events:
                await events.wait()
        else:
            async with client.run(request, session_id=session_id) as events:
                await events.wait()
    assert events.session_id == session_id
    assert f'"said": "Hey", "user": "u1", "session": "{session_id}", "run": "{events.run_id}"' in events.text


async def test_a_stop_from_the_stream(server: Server) -> None:
    async with AgentClient(url(server)) as client:
        async with client.run({"input": "Go", "do": "endless", "cleanup": 0.2}) as events:
            async for event in events:
                if event["object"] == "content":
                    break
            receipt = await events.stop(wait=True)
            assert (receipt.stopped, receipt.run_id, receipt.cleanup) == (True, events.run_id, "done")
            end = await events.wait()
    assert (end["status"], end["error"]) == ("canceled", {"code": "stopped", "message": "stopped"})
    assert events.text.startswith("t0 ")


async def test_a_stop_by_session(server: Server) -> None:
    session_id = fresh()
    async with AgentClient(url(server)) as client:
        assert not (await client.stop(session_id)).accepted
        async with client.run({"input": "Go", "do": "endless"}, session_id=session_id) as events:
            await anext(events)
            receipt = await client.stop(session_id, wait=True)
            assert receipt.stopped
            assert (await events.wait())["status"] == "canceled"


async def test_leaving_early_is_a_disconnect(server: Server) -> None:
    session_id = fresh()
    async with AgentClient(url(server)) as client:
        async with client.run({"input": "Go", "do": "endless", "cleanup": 0}, session_id=session_id) as events:
            async for event in events:
                if event["object"] == "content":
                    break
        await server.wait_mark(f"end {session_id}")
        with server.deadline(10, "end of the run"):
            while (record := await client.status(events.run_id))["state"] == "RUNNING":
                await trio.sleep(0.01)
    assert (record["state"], record["reason"]) == ("STOPPED", "disconnected")


async def test_a_read_that_is_cancelled_loses_nothing(server: Server) -> None:
    session_id = fresh()
    async with AgentClient(url(server)) as client:
        async with client.run({"input": "Go", "do": "gated"}, session_id=session_id) as events:
            seen = [await anext(events), await anext(events)]
            for _ in range(3):
                with trio.move_on_after(0.02) as impatience:
                    await anext(events)
                assert impatience.cancelled_caught
            await server.call("POST", f"/test/gate/{session_id}")
            seen += [event async for event in events]
    check_events(seen)
    assert events.text == "open"


async def test_refusals_are_errors_of_ours(server: Server) -> None:
    session_id = fresh()
    async with AgentClient(url(server)) as client:
        with pytest.raises(errors.ValidationError) as refused:
            async with client.run({"input": 5, "stream": 5}):
                pass
        assert ("$.input", "must be a list, not a number") in refused.value.errors
        async with client.run({"input": "Go", "do": "endless"}, session_id=session_id) as events:
            with pytest.raises(errors.SessionBusy) as busy:
                async with client.run("Again", session_id=session_id):
                    pass
            assert busy.value.active_run_id == events.run_id
        with pytest.raises(errors.RunNotFound):
            await client.status("no-such-run")
    async with AgentClient(url(server) + "/nowhere") as client:
        with pytest.raises(errors.NotFound):
            await client.health()


async def test_what_the_block_raises_comes_out_as_it_is(server: Server) -> None:
    async def refused() -> None:
        async with AgentClient(url(server)) as client:
            async with client.run({"input": None}):
                pass

    async def broken() -> None:
        async with AgentClient(url(server)) as client:
            async with client.run({"input": "Go", "do": "endless"}) as events:
                await anext(events)
                raise KeyError("mine")

    with pytest.raises(errors.ValidationError):
        await refused()
    with pytest.raises(KeyError, match="mine"):
        await broken()


async def test_another_node_is_tried(server: Server) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    async with AgentClient([nobody, url(server)]) as client:
        async with client.run("Hello") as events:
            assert (await events.wait())["status"] == "completed"


async def test_nobody_there(caplog: pytest.LogCaptureFixture) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    async with AgentClient(nobody, retries=Retries(attempts=3, first_delay=0.01)) as client:
        with pytest.raises(errors.ConnectionLost) as lost:
            async with client.run("Hello"):
                pass
    assert str(lost.value) == f"{nobody}: Connection refused (3 attempts)"
    assert len(caplog.records) == 2


@pytest.mark.parametrize("transport", ["sse", "websocket"])
@pytest.mark.parametrize(("pieces", "size"), [(1, 3_000_000), (1, 20_000_000), (20, 1_000_000), (2000, 5000)])
async def test_large_answers_come_whole(server: Server, transport: Any, pieces: int, size: int) -> None:
    """Also to a reader that pauses now and then, and with another run beside it."""
    async with AgentClient(url(server), transport=transport) as client:
        large = {"input": "Go", "do": "bulk", "pieces": pieces, "size": size, "session_id": fresh()}
        async with client.run(large) as events, client.run("Hello", session_id=fresh()) as beside:
            async for number, event in _numbered(events):
                assert event["sequence_number"] == number
                if number < 8:
                    await trio.sleep(0.1)
            assert len(events.text) == pieces * size
            assert (await beside.wait())["status"] == "completed"


async def _numbered(events: EventStream) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    number = 0
    async for event in events:
        yield number, event
        number += 1


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_text_that_is_no_unicode_is_sent_all_the_same(server: Server, transport: str) -> None:
    """Half a character becomes U+FFFD; two halves that stand side by side are one."""
    async with AgentClient(url(server), transport=transport) as client:
        for text, said in (("a\ud83d", "a\ufffd"), ("a\ud83d\ude00b", "a\U0001f600b")):
            async with client.run({"input": text, "do": "echo"}) as events:
                await events.wait()
            assert json.loads(events.text)["said"] == said
        with pytest.raises(errors.ValidationError, match="64 bits"):
            async with client.run({"input": "x", "own": 2**64}):
                pass


@pytest.mark.parametrize(("pieces", "size"), [(90, 100_000), (1, 9_000_000), (15, 2_000_000)])
async def test_what_was_accepted_can_be_read(server: Server, pieces: int, size: int) -> None:
    """By the end of the stream, by the waiting, and in the history, however large it is."""
    run, session = fresh("run"), fresh()
    fields = {"do": "bulk", "id": run, "session_id": session, "pieces": pieces, "size": size}
    answer = await server.call("POST", "/process", {"input": say(), "background": True, **fields})
    assert answer.status == 202
    await server.wait_mark(f"end {session}")
    end = (await server.call("GET", f"/runs/{run}/wait")).json()
    assert (end["status"], len(end["output"][0]["content"][0]["text"])) == ("completed", pieces * size)
    async with AgentClient(url(server)) as client, client.attach(run) as again:
        try:
            await again.wait()
        except errors.EventsMissed:
            # Of a large run the end is kept.
            await again.wait()
    assert again.response == end
    history = await server.get(f"/sessions/{session}/history")
    assert [len(message["content"][0]["text"]) for message in history["messages"]] == [2, pieces * size]


async def test_an_answer_that_grows_too_large_ends_its_run(server: Server) -> None:
    """What it said before is whole, and the same in every place."""
    run, session = fresh("run"), fresh()
    body = {"input": say(), "do": "bulk", "id": run, "session_id": session, "pieces": 100, "size": 1_000_000}
    async with AgentClient(url(server)) as client, client.run(body) as stream:
        events = [event async for event in stream]
    end = events[-1]
    assert (end["status"], end["error"]["code"]) == ("failed", "answer_too_large")
    assert "33,554,432 bytes" in end["error"]["message"]
    said = "".join(event["text"] for event in events if event["object"] == "content" and event["delta"])
    assert (len(said), end["output"][0]["status"]) == (33_000_000, "incomplete")
    assert end["output"][0]["content"][0]["text"] == said
    assert (await server.call("GET", f"/runs/{run}/wait")).json() == end
    record = await server.get(f"/runs/{run}")
    assert (record["state"], record["reason"]) == ("ERROR", "answer_too_large")
