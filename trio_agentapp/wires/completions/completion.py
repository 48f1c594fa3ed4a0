"""A turn of a run as one chat completion, and what the streamed form shares with it.

The shapes are those of the type `ChatCompletion` of OpenAI's clients, and `reasoning_content`, which many servers
and front ends have beside them. A completion has one text: the messages of the agent become paragraphs of it. Calls
that the agent answers itself have no place in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from ...errors import AgentAppError
from ...protocol.events import MessageEvent, ResponseEvent
from ...protocol.payload import json_text
from ..openai.errors import error_body
from ..openai.parts import call_data, part_text
from ..openai.turns import TurnId, question_in
from ..openai.usage import Usage, usage_of
from .question_call import question_call

__all__ = [
    "BETWEEN",
    "TEXT_TYPES",
    "Frame",
    "RunFailed",
    "call_of",
    "completion_of",
    "was_too_large",
]

PREFIX = "chatcmpl-"
BETWEEN = "\n\n"
"""Between the texts of two messages."""

STATUSES = {"rejected": 400, "canceled": 409, "failed": 500}

TEXT_TYPES = ("message", "error")
"""Types of messages whose text is that of the completion."""


@attrs.frozen(kw_only=True)
class Frame:
    """What all chunks of a completion share."""

    turn: TurnId
    model: str
    include_usage: bool = False

    @property
    def id(self) -> str:
        return self.turn.under(PREFIX)


class RunFailed(AgentAppError):
    """The run did not complete, so there is no completion."""

    def __init__(self, end: ResponseEvent) -> None:
        code, message = ("failed", "The run failed.") if end.error is None else (end.error.code, end.error.message)
        if end.status == "canceled":
            message = f"The run was stopped: {message}"
        super().__init__(message)
        self.status = STATUSES.get(end.status, 500)
        self.body = error_body(message, self.status, code)


def completion_of(
    frame: Frame, created_at: int, messages: Sequence[MessageEvent], end: ResponseEvent | None
) -> dict[str, Any]:
    """Return the completion of a turn: that of a run that has ended, or asks (`end` is None).

    Raises RunFailed: the run has not completed.
    """
    if end is not None and end.status != "completed" and not was_too_large(end):
        raise RunFailed(end)
    texts: list[str] = []
    reasoning: list[str] = []
    refusals: list[str] = []
    calls: list[dict[str, Any]] = []
    unanswered: set[str] = set()
    for event in messages:
        parts = event.content or ()
        question = question_in(event)
        if event.type in TEXT_TYPES or event.type == "mcp_approval_request":
            shown = [part for part in parts if event.type != "mcp_approval_request" or part.type != "data"]
            refusals += [part.refusal for part in shown if part.type == "refusal"]
            text = "".join(part_text(part) for part in shown if part.type != "refusal")
            texts += [each for each in (text, event.message or "") if each]
        elif event.type == "reasoning":
            reasoning += [part_text(part) for part in parts]
        elif event.type == "function_call":
            calls.append(call_of(event))
            unanswered.add(calls[-1]["id"])
        elif event.type == "function_call_output":
            unanswered.discard(str(call_data(event).get("call_id")))
        if question is not None:
            calls.append(question_call(question, frame.turn))
            unanswered.add(calls[-1]["id"])
    message: dict[str, Any] = {
        "role": "assistant",
        "content": BETWEEN.join(texts) if texts else None if calls or refusals else "",
        "refusal": "".join(refusals) or None,
        "annotations": [],
    }
    if reasoning:
        message["reasoning_content"] = "".join(reasoning)
    if calls:
        message["tool_calls"] = calls
    reason = "tool_calls" if unanswered else "length" if end is not None and end.status != "completed" else "stop"
    usage = None if end is None else usage_of(end.usage)
    return {
        "id": frame.id,
        "object": "chat.completion",
        "created": created_at,
        "model": frame.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": (usage or Usage()).of_completion(),
    }


def call_of(event: MessageEvent) -> dict[str, Any]:
    data = call_data(event)
    arguments = data.get("arguments")
    function = {
        "name": json_text(data.get("name") or ""),
        "arguments": "{}" if arguments is None else json_text(arguments),
    }
    return {"id": json_text(data.get("call_id") or ""), "type": "function", "function": function}


def was_too_large(end: ResponseEvent) -> bool:
    return end.error is not None and end.error.code == "answer_too_large"
