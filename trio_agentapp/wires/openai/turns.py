"""Turns: the parts of a run that one response each shows to an OpenAI client.

These clients have no answers that wait for a question in the middle. So a response ends where the run asks
(`run.ask`), and the rest of the run is the next response. The events of the run decide alone which turn is where:
turn 1 begins with the first event, each question ends a turn, and the next one begins after it. So every node
finds the same turns, at any time. Turn 1 has the run's id; turn n of it is named by the id, a dot and n.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import trio

from ...errors import BackendUnavailable, RunNotFound
from ...protocol.content import Content, DataContent
from ...protocol.events import MessageEvent, ResponseEvent
from ...protocol.message import Message
from ...runs import Gap, Subscriber
from ...runs.run import Run
from ...web.identity import Caller
from ...web.run_access import Known, RunAccess

__all__ = [
    "Asked",
    "TurnId",
    "answer_to",
    "created_at",
    "go_on_unwatched",
    "open_question",
    "question_in",
    "read_turn",
    "split_into_turns",
    "TurnSoFar",
    "turn_so_far",
]

_ID = re.compile(r"([A-Za-z0-9_-]{8,64})(?:\.([1-9][0-9]{0,5}))?")


@attrs.frozen
class TurnId:
    """A turn of a run, numbered from 1."""

    run_id: str
    number: int = 1

    def under(self, prefix: str) -> str:
        """The id of the response that shows this turn."""
        return f"{prefix}{self.run_id}" if self.number == 1 else f"{prefix}{self.run_id}.{self.number}"

    @classmethod
    def read(cls, id: object, prefix: str) -> TurnId | None:
        """The turn that an id names; None if it names none."""
        found = _ID.fullmatch(id.removeprefix(prefix)) if isinstance(id, str) and id.startswith(prefix) else None
        return None if found is None else cls(found[1], int(found[2] or 1))

    @property
    def next(self) -> TurnId:
        return TurnId(self.run_id, self.number + 1)


@attrs.frozen
class Asked:
    """A question, and the turn that it ends."""

    turn: TurnId
    event: MessageEvent
    data: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.data["id"])


def question_in(event: object) -> Mapping[str, Any] | None:
    """Return the data of the question that `event` completes; None for any other event.

    Only `run.ask` makes such data: an approval request that a handler yields by itself does not wait.
    """
    if isinstance(event, MessageEvent) and event.type == "mcp_approval_request" and event.content:
        data = event.content[-1].data
        if isinstance(data, Mapping) and "expires_at" in data and isinstance(data.get("id"), str):
            return data
    return None


def split_into_turns(messages: Iterable[MessageEvent]) -> list[list[MessageEvent]]:
    """Split the messages of a run; each turn but the last ends with its question."""
    turns: list[list[MessageEvent]] = [[]]
    for event in messages:
        turns[-1].append(event)
        if question_in(event) is not None:
            turns.append([])
    return turns


@attrs.frozen
class TurnSoFar:
    """What there is of a turn."""

    messages: Sequence[MessageEvent]
    """Those that are complete."""
    end: ResponseEvent | None
    """The terminal event of the run, if it has ended."""
    asks: bool
    """The turn ends with a question."""
    after: int
    """The number of the last event before the turn; -1: it is the first one."""


async def turn_so_far(access: RunAccess, caller: Caller, turn: TurnId) -> TurnSoFar:
    """Look up a turn, on any node.

    Raises:
        RunNotFound: there is no such turn, or it is not for this caller. Elsewhere, StreamExpired.
    """
    known = await access.look(caller, turn.run_id)
    end = None
    if known.latest.state.terminal:
        end = await (await access.attach_end(caller, turn.run_id)).terminal()
        turns = split_into_turns(end.output or ())
    else:
        turns = split_into_turns(await access.messages_so_far(caller, turn.run_id))
    if turn.number > len(turns):
        raise RunNotFound
    after = turns[turn.number - 2][-1].sequence_number if turn.number > 1 else -1
    return TurnSoFar(turns[turn.number - 1], end, turn.number < len(turns), after)


async def open_question(
    access: RunAccess, caller: Caller, run_id: str, *, id: str | None = None, turn: TurnId | None = None
) -> Asked | None:
    """Return an open question of a run: that with an id, else that which ends `turn`, else the last one.

    Returns None if there is none. Raises as `RunAccess.look` does.
    """
    if (await access.look(caller, run_id)).latest.state.terminal:
        return None
    found: dict[str, Asked] = {}
    number = 1
    for event in await access.messages_so_far(caller, run_id):
        if (data := question_in(event)) is not None:
            # Asked again after a wrong answer, it keeps its id: the last one is open.
            found[str(data["id"])] = Asked(TurnId(run_id, number), event, data)
            number += 1
        elif event.type == "mcp_approval_response" and event.content:
            answered = event.content[-1].data
            if isinstance(answered, Mapping):
                found.pop(str(answered.get("approval_request_id")), None)
    if id is not None:
        return found.get(id)
    fitting = [asked for asked in found.values() if turn is None or asked.turn == turn]
    return fitting[-1] if fitting else None


def answer_to(asked: Asked, content: Sequence[Content] | None, **data: Any) -> Message:
    """Return the message that answers a question: with content, or with data such as `approve`."""
    if content is not None:
        return Message(role="user", content=content, metadata={"question_id": asked.id})
    return Message(
        role="user",
        type="mcp_approval_response",
        content=[DataContent({"approval_request_id": asked.id, **data})],
    )


def go_on_unwatched(run: Run | None) -> None:
    """Let a run live on although the response that showed it has ended at a question."""
    if run is not None:
        run.on_disconnect = "continue"


async def read_turn(subscriber: Subscriber, run: Run | None) -> tuple[list[MessageEvent], ResponseEvent | None]:
    """Read until the next question or the end of the run. Return the completed messages, and the terminal event.

    Raises BackendUnavailable: the reader was cut off from the events.
    """
    messages: list[MessageEvent] = []
    missed = False
    while True:
        try:
            batch = await subscriber.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise BackendUnavailable("The end of this run cannot be read at present.", retry_after=1.0) from None
        for event in batch:
            if isinstance(event, MessageEvent):
                if event.content is not None:
                    messages.append(event)
                if question_in(event) is not None:
                    go_on_unwatched(run)
                    return messages, None
            elif isinstance(event, Gap):
                missed = True
            elif isinstance(event, ResponseEvent) and event.terminal:
                return (split_into_turns(event.output or ())[-1] if missed else messages), event


def created_at(known: Known) -> int:
    """When a run was created, in seconds since the epoch."""
    return int(known.run.created_at if known.run is not None else known.as_record.started_at or 0)
