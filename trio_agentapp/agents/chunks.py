"""Chunks: the pieces in which a server sends an answer, read from the JSON of its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from ..errors import ModelError
from ..protocol.ids import new_call_id

__all__ = ["BROKEN_OFF", "MALFORMED", "AnswerReader", "Chunk", "text_of_error"]

MAX_DETAIL = 500
"""Limit of characters of the server's own message in an error."""

MAX_ANSWER = 2 * 1024 * 1024
"""Limit of characters of text, reasoning and tool calls in one answer, several times those of the longest answers.
A model that exceeds it would probably never end."""

MAX_CALLS = 128
"""Limit of tool calls in one answer. All of them run at the same time."""

MALFORMED = (msgspec.DecodeError, RecursionError, UnicodeError)
"""Exceptions that decoding untrusted JSON can raise, also if it is nested too deeply or is not UTF-8."""

BROKEN_OFF = "The model's server broke off before the end of its answer."


@attrs.frozen
class Chunk:
    """A piece of an answer. The last chunk has all tool calls, in the form that a conversation keeps."""

    text: str = ""
    reasoning: str = ""
    tool_calls: Sequence[dict[str, Any]] = ()
    usage: Mapping[str, Any] | None = None
    """The tokens that the server has counted."""


# The parts of a server's JSON that are used.


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
    """Sent instead of `delta` by a server that does not stream."""
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


@attrs.define
class _OpenCall:
    """A tool call that is being received."""

    index: int | None
    id: str
    name: str = ""
    arguments: list[str] = attrs.field(factory=list)


class AnswerReader:
    """Reads the events of one answer."""

    def __init__(self) -> None:
        self.finished = False
        self._length = 0
        self._calls: list[_OpenCall] = []
        self._usage: Mapping[str, Any] | None = None

    def read(self, data: bytes) -> Chunk:
        """Return the text in an event. Tool calls and usage are kept for `end`.

        Raises ModelError if the data is not an event, or the answer is too long.
        """
        text, thought = "", ""
        event = _decoded(data)
        self._usage = event.usage or self._usage
        for choice in event.choices or ():
            self.finished = self.finished or bool(choice.finish_reason)
            delta = choice.delta or choice.message or _Delta()
            # The text of a refusal is sent as the answer.
            text += delta.content or delta.refusal or ""
            reasoning = delta.reasoning_content or delta.reasoning
            thought += reasoning if isinstance(reasoning, str) else ""
            for piece in delta.tool_calls or ():
                self._join(piece)
        self._count(len(text) + len(thought))
        return Chunk(text, thought)

    def end(self) -> Chunk:
        """Return the last chunk. Raises ModelError if the answer is not complete."""
        if not self.finished:
            raise ModelError(BROKEN_OFF, retryable=True)
        return Chunk(tool_calls=self._whole_calls(), usage=self._usage)

    def _join(self, piece: _Call) -> None:
        """Add a piece to its call. Some servers repeat the id in each piece; others give all calls one index."""
        for call in reversed(self._calls):
            if call.index == piece.index and (not piece.id or piece.id == call.id):
                break
        else:
            call = _OpenCall(piece.index, piece.id or new_call_id())
            self._calls.append(call)
            if len(self._calls) > MAX_CALLS:
                raise ModelError(f"The model called more than {MAX_CALLS} tools at once.")
        name, arguments = piece.function.name or "", piece.function.arguments or ""
        self._count(len(name) + len(arguments))
        call.name = call.name or name
        call.arguments.append(arguments)

    def _count(self, characters: int) -> None:
        self._length += characters
        if self._length > MAX_ANSWER:
            raise ModelError(f"The model's answer has more than {MAX_ANSWER} characters.")

    def _whole_calls(self) -> tuple[dict[str, Any], ...]:
        """Return the complete calls. Each gets a unique id, because some servers give several calls the same id."""
        calls: dict[str, dict[str, Any]] = {}
        for call in self._calls:
            unique = new_call_id() if call.id in calls else call.id
            function = {"name": call.name, "arguments": "".join(call.arguments) or "{}"}
            calls[unique] = {"id": unique, "type": "function", "function": function}
        return tuple(calls.values())


def _decoded(data: bytes) -> _Event:
    try:
        event = msgspec.json.decode(data, type=_Event)
    except msgspec.ValidationError as error:
        raise ModelError("The model's server sent something that is not an answer.", detail=str(error)) from error
    except MALFORMED as error:
        raise ModelError("The model's server sent something that is not JSON.", detail=str(error)) from error
    if event.error is not None:
        summary = "The model's server reported an error in the middle of its answer."
        raise ModelError(summary, detail=text_of_error(event.error), retryable=True)
    return event


def text_of_error(error: Any) -> str:
    """Return the message of a server's error, in any of the forms that servers use."""
    while isinstance(error, list | dict) and error:
        if isinstance(error, list):
            error = error[0]
        else:
            error = error.get("error") or error.get("message") or error.get("detail") or str(error)
    return str(error)[:MAX_DETAIL]
