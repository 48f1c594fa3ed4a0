"""Questions of runs in protocols whose stream ends at a question, and whose next request brings the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypedDict

import attrs
from quart.wrappers import Request

from ..errors import RunEnded, ValidationError
from ..protocol.content import DataContent
from ..protocol.events import MessageEvent
from ..protocol.message import Message
from ..protocol.request import CancelAfter
from ..runs import Run
from ..runs.runner import Watched
from ..web.identity import Caller
from ..web.run_access import RunAccess
from ..web.sse import hold_watch

__all__ = ["Answered", "QuestionHooks", "QuestionId", "hooks_of", "resume"]

ABSENCE = CancelAfter(3600.0)
"""How long a run of "cancel" waits for a client that has left it at a question. `run.ask(timeout=)` may end it
sooner."""

_FORM = re.compile(r"([A-Za-z0-9_-]{8,64})\.([0-9]{1,15})\.(approval|input|auth)\.([\x21-\x7e]{1,80})")

_YES = ("approved", "approve", "accepted", "answer")


@attrs.frozen
class QuestionId:
    """Names a question for clients, so that their answer finds the run on any node, and the event to go on from."""

    run_id: str
    number: int
    """The sequence number of the event that closes the question."""
    kind: str
    question_id: str

    @classmethod
    def of(cls, run_id: str, event: MessageEvent, data: Mapping[str, Any]) -> QuestionId:
        kind = data.get("name")
        kind = kind if kind in ("approval", "auth") else "input"
        return cls(run_id, event.sequence_number, kind, str(data.get("id")))

    @classmethod
    def parse(cls, text: object) -> QuestionId | None:
        """Return the id that `str` made; None if it is none."""
        match = _FORM.fullmatch(text) if isinstance(text, str) else None
        return None if match is None else cls(match[1], int(match[2]), match[3], match[4])

    def __str__(self) -> str:
        return f"{self.run_id}.{self.number}.{self.kind}.{self.question_id}"


@attrs.frozen
class Answered:
    """An answer of a client. `refused`: it will not answer, and has said why, or not."""

    question: QuestionId
    value: Any = None
    refused: bool = False
    reason: str | None = None

    @property
    def gives_up(self) -> bool:
        """Whether the run is to be stopped: a question that is no approval has no answer that means no."""
        return self.refused and self.question.kind != "approval"

    def message(self) -> Message:
        data: dict[str, Any] = {"approval_request_id": self.question.question_id}
        if self.question.kind == "input":
            data["answer"] = self.value
        else:
            data["approve"] = not self.refused and approval_in(self.value)
        if self.reason is not None:
            data["reason"] = self.reason
        return Message(role="user", type="mcp_approval_response", content=[DataContent(data)])


def approval_in(value: Any) -> Any:
    """Return what a client's answer says about an approval: the value itself, or a usual member of it."""
    if isinstance(value, Mapping):
        return next((value[name] for name in _YES if name in value), True)
    return True if value is None else value


class QuestionHooks(TypedDict):
    """What a `PartStream` is given to know about questions."""

    is_open: Callable[[str], bool]
    on_question: Callable[[], object]


def hooks_of(run: Run | None) -> QuestionHooks:
    """Return the hooks for a run; None: it is on another node, and each of its questions is taken for open."""
    if run is None:
        return {"is_open": lambda _: True, "on_question": lambda: None}
    return {"is_open": run.input.has_open, "on_question": partial(run.expect_absence, ABSENCE)}


async def resume(request: Request, access: RunAccess, caller: Caller, answers: Sequence[Answered]) -> Watched:
    """Watch the run from its last question on, and give it the answers. The questions are all of one run.

    An answer to a question that is not open any more is dropped: another client was first, or time was up, and the
    stream shows it.

    Raises:
        ValidationError: they are of several runs. RunNotFound: unknown, or not for this caller.
        StreamExpired: the events of the run are not kept any more.
    """
    last = max((each.question for each in answers), key=lambda each: each.number)
    if any(each.question.run_id != last.run_id for each in answers):
        raise ValidationError([("$.resume", "must answer questions of one run")])
    # First the reader: a run that has its answer and no reader may be stopped as unwatched.
    watched = await access.attach(caller, last.run_id, last.number)
    if watched is None:
        watched = await access.attach_end(caller, last.run_id)
    hold_watch(request, watched.subscriber)
    for each in answers:
        if each.gives_up:
            await access.cancel(caller, last.run_id)
            break
        try:
            await access.send_input(caller, last.run_id, each.message())
        except (RunEnded, ValidationError):
            continue
    return watched
