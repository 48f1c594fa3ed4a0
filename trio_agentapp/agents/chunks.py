"""Chunks: the pieces in which a server sends an answer, read from the JSON of its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from ..errors import ModelError
from ..protocol.ids import new_call_id

__all__ = ["BROKEN_OFF", "AnswerReader", "Chunk", "text_of_error"]

MAX_DETAIL = 500
"""Characters of the server's own message in an error."""

BROKEN_OFF = "The model's server broke off before the end of its answer."


@attrs.frozen
class Chunk:
    """A piece of an answer. The last one has the tool calls, whole and in the form that a conversation keeps."""

    text: str = ""
    reasoning: str = ""
    tool_calls: Sequence[dict[str, Any]] = ()
    usage: Mapping[str, Any] | None = None
    """Tokens, as the server has counted them."""


# The JSON of a server, as far as it is used.


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    """In place of `delta`, if the server does not stream."""
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


class AnswerReader:
    """Reads the events of one answer."""

    def __init__(self) -> None:
        self.finished = False
        self._calls: list[_Call] = []
        self._usage: Mapping[str, Any] | None = None

    def read(self, data: bytes) -> Chunk:
        """Return the text in an event. Tool calls and usage are kept for `end`. Raises ModelError."""
        text, thought = "", ""
        event = _decoded(data)
        self._usage = event.usage or self._usage
        for choice in event.choices or ():
            self.finished = self.finished or bool(choice.finish_reason)
            delta = choice.delta or choice.message or _Delta()
            # A refusal is an answer of the model, too.
            text += delta.content or delta.refusal or ""
            reasoning = delta.reasoning_content or delta.reasoning
            thought += reasoning if isinstance(reasoning, str) else ""
            for piece in delta.tool_calls or ():
                self._join(piece)
        return Chunk(text, thought)

    def end(self) -> Chunk:
        """Return the last chunk. Raises ModelError if the answer is not complete."""
        if not self.finished:
            raise ModelError(BROKEN_OFF, retryable=True)
        return Chunk(tool_calls=tuple(map(_whole, self._calls)), usage=self._usage)

    def _join(self, piece: _Call) -> None:
        """Add a piece to its call. Some servers repeat the id in each piece, and some give all calls one index."""
        for call in reversed(self._calls):
            if call.index == piece.index and (not piece.id or piece.id == call.id):
                known, more = call.function, piece.function
                known.name = known.name or more.name
                known.arguments = (known.arguments or "") + (more.arguments or "")
                return
        piece.id = piece.id or new_call_id()
        self._calls.append(piece)


def _decoded(data: bytes) -> _Event:
    try:
        event = msgspec.json.decode(data, type=_Event)
    except msgspec.ValidationError as error:
        raise ModelError("The model's server sent something that is not an answer.", detail=str(error)) from error
    except msgspec.DecodeError as error:
        raise ModelError("The model's server sent something that is not JSON.", detail=str(error)) from error
    if event.error is not None:
        summary = "The model's server reported an error in the middle of its answer."
        raise ModelError(summary, detail=text_of_error(event.error), retryable=True)
    return event


def _whole(call: _Call) -> dict[str, Any]:
    function = {"name": call.function.name or "", "arguments": call.function.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}


def text_of_error(error: Any) -> str:
    """Return the message in one of the forms of errors that servers use."""
    while isinstance(error, list | dict) and error:
        if isinstance(error, list):
            error = error[0]
        else:
            error = error.get("error") or error.get("message") or error.get("detail") or str(error)
    return str(error)[:MAX_DETAIL]
