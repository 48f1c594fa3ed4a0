"""A question of the agent as a tool call, whose output is the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...protocol.content import DataContent
from ...protocol.message import Message
from ...protocol.payload import json_text
from ..openai.fields import json_object
from ..openai.turns import TurnId

__all__ = ["answer_data", "answered_call", "question_call"]

CALL_ID_LENGTH = len("call_") + 32
"""Of a question's id. In the id of its tool call, the run's id follows."""


def question_call(question: Mapping[str, Any], turn: TurnId) -> dict[str, Any]:
    """Return the call that shows a question. Its id names the run: a request may name no session."""
    shown = {
        name: question[name]
        for name in ("question", "schema", "expires_at", "fault")
        if question.get(name) is not None
    }
    function = {"name": str(question.get("name")), "arguments": json_text(shown)}
    return {"id": f"{question['id']}_{turn.run_id}", "type": "function", "function": function}


def answered_call(messages: list[Message]) -> tuple[str, str, Message] | None:
    """Return the question and the run that the last message answers, and the message; None: it answers none."""
    last = messages[-1]
    if last.type != "function_call_output" or not isinstance(last.content[0], DataContent):
        return None
    id = last.content[0].data["call_id"]
    question, rest = id[:CALL_ID_LENGTH], id[CALL_ID_LENGTH:]
    if not question.startswith("call_") or len(question) < CALL_ID_LENGTH or not rest.startswith("_"):
        return None
    return question, rest[1:], last


def answer_data(message: Message) -> dict[str, Any]:
    """Return the answer in the output of a question's tool call: an object with `answer` or `approve`, or text."""
    assert isinstance(message.content[0], DataContent)  # noqa: S101  `answered_call` has looked
    text = message.content[0].data["output"]
    found = json_object(text)
    if found is not None and ("answer" in found or "approve" in found):
        return {name: found[name] for name in ("answer", "approve", "reason") if name in found}
    return {"answer": found if found is not None else text}
