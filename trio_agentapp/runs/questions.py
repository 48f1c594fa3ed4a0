"""Questions that a handler asks the people at the other end, and their answers.

A question is a message of type `mcp_approval_request` in the answer of the run, so every client receives it in its
stream, and a client that attaches later does, too. An answer is sent as any other input, to any node. The run
repeats it in its stream as a message of type `mcp_approval_response`. A question is open until then.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import attrs
import orjson
import trio

from ..errors import ConfigurationError, ItemError
from ..protocol.content import Content, DataContent, TextContent
from ..protocol.ids import new_call_id
from ..protocol.message import Message
from ..protocol.payload import plain_json

__all__ = ["MAX_QUESTIONS", "Answer", "Question", "question_named_in"]

MAX_QUESTIONS = 64
"""Open questions of one run."""

_WORDS = {"yes": True, "y": True, "approve": True, "no": False, "n": False, "deny": False}
"""Words that are accepted as true and false in the text of an answer."""

MAX_LISTED_TEXT = 2000
"""Characters of a question in a list of questions. The stream of the run has all of it."""

MAX_LISTED_SCHEMA = 4096
"""Bytes of a schema in a list of questions. A larger one is left out."""


@attrs.frozen
class Answer:
    """An answer to `run.ask`.

    `value` is what was answered: converted to the schema's type if one was given, else the text, or the JSON value
    if the client sent data. `message` is the message that brought it, with attachments. `str(answer)` is its text.
    """

    value: Any
    message: Message

    @property
    def approved(self) -> bool:
        """Whether the answer is `True`: the person has approved."""
        return self.value is True

    def __str__(self) -> str:
        return self.value if isinstance(self.value, str) else self.message.text


class Question:
    """One question, from `run.ask` until its answer.

    Raises:
        ConfigurationError: there is no JSON Schema of `schema`.
        ItemError: the question is neither text nor a message.
    """

    __slots__ = ("_schema", "answer", "asked_at", "content", "data", "id")

    def __init__(self, question: str | Message, *, schema: Any, timeout: float | None, auth: bool) -> None:
        if not isinstance(question, str | Message):
            raise ItemError(f"a question must be a text or a Message, not {type(question).__name__}")
        text = question if isinstance(question, str) else question.text
        content: list[Content] = [TextContent(text)] if isinstance(question, str) else [*question.content]
        kind = "auth" if auth else "approval" if schema is bool else "input"
        self.id = new_call_id()
        self.content = content
        # `name`, `arguments` and `server_label` are the fields of an approval request in the Responses API.
        self.data: dict[str, Any] = {
            "id": self.id,
            "name": kind,
            "arguments": orjson.dumps({"question": text}).decode(),
            "server_label": "agent",
            "question": text,
            "schema": _json_schema(schema),
            "expires_at": None if timeout is None else time.time() + timeout,
        }
        self.asked_at = time.time()
        self.answer: trio.Event | Message = trio.Event()
        self._schema = schema

    def message(self, fault: str | None = None) -> Message:
        """Return the message of the agent that asks the question. `fault`: why the last answer was not accepted."""
        data = self.data if fault is None else {**self.data, "fault": fault}
        return Message(type="mcp_approval_request", content=[*self.content, DataContent(data)])

    def listed(self) -> dict[str, Any]:
        """Return the entry of the question in `GET /questions`. A text beyond `MAX_LISTED_TEXT` is cut."""
        text, schema = self.data["question"], self.data["schema"]
        return {
            "id": self.id,
            "name": self.data["name"],
            "question": text if len(text) <= MAX_LISTED_TEXT else text[:MAX_LISTED_TEXT] + "…",
            "schema": schema if len(orjson.dumps(schema)) <= MAX_LISTED_SCHEMA else None,
            "asked_at": self.asked_at,
            "expires_at": self.data["expires_at"],
        }

    @property
    def waits(self) -> bool:
        """Whether the question still waits for a message with its answer."""
        return isinstance(self.answer, trio.Event)

    def give(self, message: Message) -> None:
        waiting, self.answer = self.answer, message
        if isinstance(waiting, trio.Event):
            waiting.set()

    def take(self) -> Message | None:
        """Return the message that was given as the answer, and wait for another one; None if there is none."""
        if isinstance(self.answer, trio.Event):
            return None
        message, self.answer = self.answer, trio.Event()
        return message

    def read(self, message: Message) -> Answer:
        """Return the answer in a message.

        Raises ValueError, with a text for the person who answers, if its form is wrong.
        """
        value = _value_of(message)
        try:
            plain_json(value, "$.answer")
        except ItemError as error:
            raise ValueError(str(error)) from None
        return Answer(_converted(value, self._schema), message)

    def reply(self, answer: Answer | None) -> Message:
        """Return the message of the stream that repeats the answer. None: there was no answer in time."""
        data: dict[str, Any] = {"approval_request_id": self.id, "approve": False}
        if answer is None:
            data["reason"] = "timeout"
        else:
            data.update(approve=answer.value is not False, answer=_value_of(answer.message))
            if answer.message.id is not None:
                data["message_id"] = answer.message.id
        return Message(role="user", type="mcp_approval_response", content=[DataContent(data)])


def question_named_in(message: Message) -> str | None:
    """Return the id of the question that a message says it answers; None if it names none."""
    named = None if message.metadata is None else message.metadata.get("question_id")
    if message.type == "mcp_approval_response":
        for part in message.content:
            if isinstance(part, DataContent) and isinstance(part.data, Mapping):
                named = part.data.get("approval_request_id", named)
    return named if isinstance(named, str) else None


def _value_of(message: Message) -> Any:
    for part in message.content:
        if isinstance(part, DataContent):
            data = part.data
            if isinstance(data, Mapping):
                for name in ("answer", "approve"):
                    if name in data:
                        return data[name]
            return data
    return message.text


def _json_schema(schema: Any) -> Any:
    if schema is None or isinstance(schema, Mapping):
        return plain_json(schema, "$.schema")
    if hasattr(schema, "model_json_schema"):
        return schema.model_json_schema()
    import msgspec

    try:
        return msgspec.json.schema(schema)
    except (TypeError, RuntimeError) as error:
        raise ConfigurationError(
            f"the schema of a question must be a type with a form in JSON, or a JSON Schema: {error}"
        ) from None


def _converted(value: Any, schema: Any) -> Any:
    if schema is None or isinstance(schema, Mapping):
        return value
    if hasattr(schema, "model_validate"):
        return schema.model_validate(value)
    import msgspec

    if schema is bool and isinstance(value, str):
        value = _WORDS.get(value.strip().lower(), value)
    return msgspec.convert(value, schema, strict=False)
