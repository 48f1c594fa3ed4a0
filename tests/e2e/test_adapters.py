"""A protocol of one's own over the runs of an app, with a spelling that counts what it has sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .harness import Answer, Server, fresh

AGENT = "shouting"
ALLOWED_LOG = "^before the drain$"


async def shout(server: Server, text: str, **fields: Any) -> Answer:
    answer = await server.call("POST", "/shout", {"text": text, **fields})
    assert answer.status == 200, answer
    return answer


def lines_of(answer: Answer) -> list[str]:
    assert answer.body.startswith(b": stream\n")
    return [line.removeprefix("data: ") for line in answer.body.decode().split("\n") if line.startswith("data: ")]


async def test_a_stream_in_its_own_words(server: Server) -> None:
    answer = await shout(server, "slow")
    assert lines_of(answer) == [f"{number} WORD " for number in range(1, 21)] + ["COMPLETED", "BYE"]
    assert answer.header("x-loud") == "yes"
    assert answer.header("x-run-id")


async def test_frames_that_a_socket_does_not_take_at_once(server: Server) -> None:
    """A spelling keeps state, so no event may be spelled twice, in whichever task it is written."""
    answer = await shout(server, "big")
    assert [line[:3] for line in lines_of(answer)] == [
        *(f"{number} {letter}" for number, letter in enumerate("ABCDEFGH", 1)),
        "COM",
        "BYE",
    ]
    assert all(len(line) == 2 + 200_000 for line in lines_of(answer)[:-2])


async def test_a_stream_ends_at_a_question_and_the_run_goes_on(server: Server) -> None:
    run = fresh("run")
    first = lines_of(await shout(server, "ask", id=run))
    assert first[0] == "1 HM "
    assert first[1].startswith("ASKS call_")
    assert len(first) == 2
    assert (await server.get(f"/runs/{run}"))["state"] == "RUNNING"
    wrong = {"type": "mcp_approval_response", "role": "user"}
    wrong["content"] = [{"type": "data", "data": {"approval_request_id": "call_0", "answer": "yes"}}]
    refused = await server.call("POST", f"/runs/{run}/input", wrong)
    assert (refused.status, refused.json()["detail"]) == (422, "$: answers a question that is not open")
    said = {"role": "user", "content": "yes"}
    assert (await server.call("POST", f"/runs/{run}/input", said)).status == 202
    end = (await server.get(f"/runs/{run}/wait"))["output"]
    assert end[-1]["content"][0]["text"] == "so yes"


@pytest.mark.parametrize(("text", "why"), [("no", "I do not answer this."), ("no, from a child", "Nor this.")])
async def test_a_handler_rejects_its_request(server: Server, text: str, why: str) -> None:
    run = fresh("run")
    body = {"input": text, "id": run, "stream": False}
    answer = await server.call("POST", "/process", body)
    assert answer.status == 200
    end = answer.json()
    assert (end["status"], end["error"]) == ("rejected", {"code": "rejected", "message": why})
    known = await server.get(f"/runs/{run}")
    assert (known["state"], known["reason"]) == ("ERROR", "rejected")
    assert "COMPLETED" not in lines_of(await shout(server, text))


async def test_a_built_in_route_is_kept(server: Server) -> None:
    answer = await server.call("GET", "/")
    assert json.loads(answer.body)["name"] == "Loud"


def test_it_is_told_before_a_drain(start: Any) -> None:
    server = start("shouting")
    server.close(allowed=ALLOWED_LOG)
    assert "before the drain" in server.log
