"""Questions of a handler: who is asked, what counts as an answer, and what ends the wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson
import pytest
import trio

from trio_agentapp.abc import Lease, QuestionBoard
from trio_agentapp.errors import ConfigurationError, ItemError
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.protocol.content import DataContent
from trio_agentapp.protocol.events import MessageEvent
from trio_agentapp.protocol.lifecycle import Cause
from trio_agentapp.protocol.message import Message
from trio_agentapp.protocol.message_json import encode_message
from trio_agentapp.protocol.timings import Timings
from trio_agentapp.runs import Run
from trio_agentapp.runs.questions import MAX_QUESTIONS, Answer
from trio_agentapp.testing import UnrulyBackend

from .conftest import House, events_of, how, open_a_house
from .test_receive import Postbox


def said(text: str) -> Message:
    return Message(role="user", content=text)


def answer_to(question_id: str, **data: Any) -> Message:
    content = [DataContent({"approval_request_id": question_id, **data})]
    return Message(role="user", type="mcp_approval_response", content=content)


async def asked_of(run: Run, place: int = 0) -> dict[str, Any]:
    """The data of the question at `place` in what the run has sent, when it is there."""
    with trio.fail_after(10):
        while True:
            asked = [each for each in run.builder.messages if each.type == "mcp_approval_request"]
            if len(asked) > place:
                content = asked[place].content[-1]
                assert isinstance(content, DataContent)
                data: dict[str, Any] = content.data
                return data
            await trio.sleep(0.01)


def asking(got: list[Any], *args: Any, **options: Any) -> Any:
    async def ask(run: Run) -> None:
        got.append(await run.ask(*args, **options))

    return ask


async def test_a_text_is_the_answer(autojump_clock, house: House) -> None:
    got: list[Answer] = []
    run = await house.start(asking(got, "Which city?"))
    question = await asked_of(run)
    assert question["question"] == "Which city?"
    assert (question["name"], question["schema"], question["expires_at"]) == ("input", None, None)
    assert run.input.give(said("Rome"))
    await run.ended.wait()
    assert how(run) == ("FINISHED", "returned")
    assert (got[0].value, str(got[0]), got[0].approved) == ("Rome", "Rome", False)
    sent = [(event.type, event.role) for event in await events_of(run) if isinstance(event, MessageEvent)]
    assert sent[::2] == [("mcp_approval_request", "assistant"), ("mcp_approval_response", "user")]


@pytest.mark.parametrize(
    ("given", "approved"),
    [
        ({"approve": True}, True),
        ({"approve": False, "reason": "no"}, False),
        ({"answer": "yes"}, True),
        ({"answer": "No "}, False),
        ({"answer": "true"}, True),
        ({"approve": 0}, False),
    ],
)
async def test_an_approval(autojump_clock, house: House, given: dict[str, Any], approved: bool) -> None:
    got: list[Answer] = []
    run = await house.start(asking(got, "Delete it?", schema=bool))
    question = await asked_of(run)
    assert (question["name"], question["schema"]) == ("approval", {"type": "boolean"})
    run.input.give(answer_to(question["id"], **given))
    await run.ended.wait()
    assert got[0].approved is approved
    replies = [event for event in await events_of(run) if getattr(event, "type", "") == "mcp_approval_response"]
    assert replies[-1].content[0].data["approve"] is approved


@dataclass
class Trip:
    city: str
    days: int


@pytest.mark.parametrize(
    ("schema", "wrong", "right", "value"),
    [
        (Trip, {"city": "Rome"}, {"city": "Rome", "days": "3"}, Trip("Rome", 3)),
        (Literal["a", "b"], "c", "b", "b"),
        (bool, "perhaps", True, True),
        (int, "many", "12", 12),
    ],
)
async def test_a_wrong_answer_is_asked_for_again(
    autojump_clock, house: House, schema: Any, wrong: Any, right: Any, value: Any
) -> None:
    got: list[Answer] = []
    run = await house.start(asking(got, "What?", schema=schema))
    question = await asked_of(run)
    run.input.give(answer_to(question["id"], answer=wrong))
    again = await asked_of(run, 1)
    assert again["id"] == question["id"]
    assert again["fault"]
    assert "fault" not in question
    run.input.give(answer_to(question["id"], answer=right))
    await run.ended.wait()
    assert got[0].value == value


async def test_an_answer_that_cannot_be_repeated(autojump_clock, house: House) -> None:
    got: list[Answer] = []
    run = await house.start(asking(got, "What?"))
    question = await asked_of(run)
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    run.input.give(answer_to(question["id"], answer=deep))
    assert "deep" in (await asked_of(run, 1))["fault"]
    run.input.give(answer_to(question["id"], answer="flat"))
    await run.ended.wait()
    assert got[0].value == "flat"


async def test_answers_find_their_questions(autojump_clock, house: House) -> None:
    got: dict[str, Any] = {}

    async def ask(run: Run) -> None:
        async def one(name: str) -> None:
            got[name] = (await run.ask(name)).value

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "first")
            await asked_of(run)
            nursery.start_soon(one, "second")

    run = await house.start(ask)
    first, second = await asked_of(run), await asked_of(run, 1)
    assert run.input.expects(answer_to(second["id"], answer=2))
    run.input.give(answer_to(second["id"], answer=2))
    run.input.give(answer_to(second["id"], answer="too late"))
    run.input.give(said("plain text goes to the oldest open question"))
    await run.ended.wait()
    assert got == {first["question"]: "plain text goes to the oldest open question", second["question"]: 2}
    assert not run.input.expects(answer_to(first["id"], answer=1))


async def test_input_without_an_open_question_is_received(autojump_clock, house: House) -> None:
    got: list[Any] = []

    async def ask(run: Run) -> None:
        got.append((await run.ask("now?")).value)
        got.append((await run.receive()).text)

    run = await house.start(ask)
    question = await asked_of(run)
    run.input.give(said("yes"))
    await trio.sleep(0.1)
    run.input.give(answer_to(question["id"], answer="an answer to a closed question is dropped"))
    run.input.give(said("more"))
    await run.ended.wait()
    assert got == ["yes", "more"]


async def test_nobody_answers(autojump_clock, house: House) -> None:
    async def ask(run: Run) -> Any:
        began = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await run.ask("anybody?", timeout=30)
        return f"waited {trio.current_time() - began:.0f}"

    run = await house.play(ask)
    assert how(run) == ("FINISHED", "returned")
    *_, reply, text = run.builder.messages
    assert reply.content[0].data["reason"] == "timeout"  # type: ignore[union-attr]
    assert text.text == "waited 30"


async def test_a_stop_ends_the_wait(autojump_clock, house: House) -> None:
    got: list[Any] = []
    run = await house.start(asking(got, "stop me"))
    await asked_of(run)
    await house.stop(run, wait=True)
    assert how(run) == ("STOPPED", "stopped")
    assert got == []


async def test_the_time_limit_ends_the_wait(autojump_clock, house: House) -> None:
    run = await house.start(asking([], "slow?"), timeout_s=5)
    await run.ended.wait()
    assert how(run) == ("ERROR", "deadline_exceeded")


async def test_an_answer_that_reached_another_node(autojump_clock) -> None:
    got: list[Answer] = []
    server = Postbox()
    async with open_a_house(backend=UnrulyBackend(server)) as house:
        run = await house.start(asking(got, "from elsewhere?"))
        question = await asked_of(run)
        server.sent.append(encode_message(answer_to(question["id"], answer="here")))
        await run.ended.wait()
    assert got[0].value == "here"


async def test_what_cannot_be_asked(autojump_clock, house: House) -> None:
    async def ask(run: Run) -> None:
        with pytest.raises(ItemError, match="must be a text or a Message, not int"):
            await run.ask(3)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="a form in JSON"):
            await run.ask("what?", schema=object)
        async with trio.open_nursery() as nursery:
            for number in range(MAX_QUESTIONS):
                nursery.start_soon(run.ask, f"question {number}")
            await asked_of(run, MAX_QUESTIONS - 1)
            with pytest.raises(RuntimeError, match="64"):
                await run.ask("one more?")
            nursery.cancel_scope.cancel()
        assert run.input.expects(said("x"))
        assert run.input.questions == ()

    assert how(await house.play(ask)) == ("FINISHED", "returned")


class Board(LocalInterruptBackend, QuestionBoard):
    """Carries questions as the Redis backend does; its leases end."""

    timings = Timings()

    def __init__(self) -> None:
        super().__init__()
        self.posted: list[list[dict[str, Any]]] = []

    async def post_questions(self, lease: Lease, questions: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.posted.append(orjson.loads(questions) if questions else [])


async def test_open_questions_are_posted_for_other_nodes_although_calls_fail(autojump_clock) -> None:
    board = Board()

    async def ask(run: Run) -> None:
        await run.ask("x" * 5000, schema=Literal[tuple(f"{number:05}" for number in range(1000))])
        await run.ask("Sure?", schema=bool)
        await trio.sleep(3)

    async with open_a_house(backend=UnrulyBackend(board)) as house:
        house.backend.fail("post_questions", times=3)
        house.backend.lose("post_questions")
        run = await house.start(ask)
        first = await asked_of(run)
        await trio.sleep(8)
        [shown] = board.posted[-1]
        assert (shown["id"], shown["name"], shown["schema"]) == (first["id"], "input", None)
        assert shown["question"] == "x" * 2000 + "…"
        run.input.give(answer_to(first["id"], answer="00007"))
        second = await asked_of(run, 1)
        await trio.sleep(1)
        assert [each["id"] for each in board.posted[-1]] == [second["id"]]
        run.input.give(answer_to(second["id"], approve=True))
        await trio.sleep(1)
        assert board.posted[-1] == []
        with trio.fail_after(10):
            await run.ended.wait()


async def test_questions_of_a_stopped_run_are_not_posted_for_ever(autojump_clock) -> None:
    board = Board()
    async with open_a_house(backend=UnrulyBackend(board)) as house:
        house.backend.fail("post_questions", times=1000)
        run = await house.start(asking([], "Sure?", schema=bool))
        await asked_of(run)
        await trio.sleep(5)
        run.scope.stop(Cause.STOPPED)
        with trio.fail_after(10):
            await run.ended.wait()
        await trio.sleep(2)
        calls = house.backend.calls["post_questions"]
        assert calls > 2
        await trio.sleep(10)
        assert house.backend.calls["post_questions"] == calls
