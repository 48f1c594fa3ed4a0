"""The events of a run as the chunks of a streamed chat completion, or as one completion.

The shapes are those of the types `ChatCompletion` and `ChatCompletionChunk` of OpenAI's clients, and
`reasoning_content`, which many servers and front ends have beside them. A completion has one text: the messages of
the agent become paragraphs of it. Calls that the agent answers itself have no place in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import orjson

from ...errors import AgentAppError
from ...protocol.events import ContentEvent, Event, MessageEvent, ResponseEvent
from ...runs import Gap
from ...runs.run import Run
from ..openai.errors import error_body
from ..openai.fields import json_text
from ..openai.parts import call_data, part_text
from ..openai.turns import TurnId, go_on_unwatched, question_in
from ..openai.usage import Usage, usage_of
from .asked import call_id_of

__all__ = ["PREFIX", "CompletionStream", "Frame", "RunFailed", "completion_of"]

PREFIX = "chatcmpl-"
PREAMBLE = b": stream\n\n"
DONE = b"data: [DONE]\n\n"
BETWEEN = "\n\n"
"""Between the texts of two messages."""

STATUSES = {"rejected": 400, "canceled": 409, "failed": 500}

_TEXT_TYPES = ("message", "error")


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


class _Call:
    """A tool call that is being written."""

    __slots__ = ("arguments", "call_id", "index", "name", "sent")

    def __init__(self) -> None:
        self.index = -1
        """Its place among the tool calls; -1: it was not sent."""
        self.call_id = self.name = self.arguments = ""
        self.sent = 0


class CompletionStream:
    """Spells one turn of a run.

    `begun`: None, and the stream begins with the first event of the run; else the time at which the run was
    created, and it begins with the turn.
    """

    def __init__(self, frame: Frame, run: Run | None, *, begun: int | None = None) -> None:
        self.ended = False
        self._frame = frame
        self._run = run
        self._calls: dict[str, _Call] = {}
        self._unanswered: set[str] = set()
        self._called = 0
        self._kinds: dict[str, str] = {}
        self._written = ""
        """The message whose text was written last."""
        self._msg_id = ""
        """The message to which the last delta of text belonged."""
        self._index = -1
        self._seen: set[tuple[str, int]] = set()
        """Parts of open messages of which deltas were sent."""
        self._head = b""
        self.preamble = PREAMBLE if begun is None else PREAMBLE + self._begin(begun)

    def trailer(self) -> bytes:
        return b""

    def spell(self, event: Event | Gap) -> bytes:
        if type(event) is ContentEvent:
            if (
                event.delta
                and event.msg_id == self._msg_id
                and event.index == self._index
                and event.payload is None
            ):
                return b'%b{"content":%b}%b' % (self._head, orjson.dumps(event.text), self._tail)
            return b"" if self.ended else self._content(event)
        if self.ended:
            return b""
        if isinstance(event, MessageEvent):
            return self._message(event)
        if isinstance(event, ResponseEvent):
            return self._response(event)
        if isinstance(event, Gap):
            message = "This client has read too slowly: a part of the answer is not kept any more."
            return self._fail(error_body(message, 410, "events_lost"))
        return b""

    # The completion.

    def _begin(self, created_at: int) -> bytes:
        known = {"id": self._frame.id, "object": "chat.completion.chunk", "created": created_at}
        self._opening = orjson.dumps({**known, "model": self._frame.model}).removesuffix(b"}")
        usage = b',"usage":null' if self._frame.include_usage else b""
        self._head = b'data: %b%b,"choices":[{"index":0,"delta":' % (self._opening, usage)
        self._tail = b',"logprobs":null,"finish_reason":null}]}\n\n'
        return self._delta({"role": "assistant", "content": ""})

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        return self._head + orjson.dumps(delta) + self._tail

    def _response(self, event: ResponseEvent) -> bytes:
        begin = b"" if self._head else self._begin(event.created_at)
        if not event.terminal:
            return begin
        if event.status == "completed" or _was_too_large(event):
            reason = "tool_calls" if self._unanswered else "stop" if event.status == "completed" else "length"
            return begin + self._finish(reason, usage_of(event.usage))
        return begin + self._fail(RunFailed(event).body)

    def _finish(self, reason: str, usage: Usage | None) -> bytes:
        self.ended = True
        data = b'%b{},"logprobs":null,"finish_reason":"%b"}]}\n\n' % (self._head, reason.encode())
        if self._frame.include_usage:
            # Asked for, it must be there: without figures of the agent it has zeros.
            tokens = orjson.dumps((usage or Usage()).of_completion())
            data += b'data: %b,"choices":[],"usage":%b}\n\n' % (self._opening, tokens)
        return data + DONE

    def _fail(self, body: Mapping[str, Any]) -> bytes:
        self.ended = True
        return b"data: %b\n\n" % orjson.dumps(body) + DONE

    # Messages.

    def _message(self, event: MessageEvent) -> bytes:
        if event.content is None:
            self._kinds[event.id] = event.type
            return b""
        known = self._kinds.pop(event.id, None) is not None
        self._msg_id, self._index = "", -1
        if event.type == "function_call":
            return self._finish_call(event)
        if event.type == "function_call_output":
            self._unanswered.discard(str(call_data(event).get("call_id")))
            return b""
        data = b""
        if not known:
            # It began in an earlier turn, so nothing of it was sent in this one.
            data = b"".join(self._whole(event.type, part) for part in event.content)
        self._seen = {seen for seen in self._seen if seen[0] != event.id}
        if event.type == "error" and event.message:
            data += self._text(event.id, event.message)
        if (question := question_in(event)) is not None:
            data += self._ask(question)
        return data

    def _ask(self, question: Mapping[str, Any]) -> bytes:
        """Show a question as a tool call, and end the completion with it."""
        go_on_unwatched(self._run)
        call = _question_call(question, self._frame.turn)
        shown = {"index": self._called, **call}
        return self._delta({"tool_calls": [shown]}) + self._finish("tool_calls", None)

    def _content(self, event: ContentEvent) -> bytes:
        kind = self._kinds.get(event.msg_id)
        if kind == "function_call":
            return self._call_delta(event) if event.delta else b""
        if kind is None:
            return b""
        if not event.delta:
            if event.msg_id == self._msg_id:
                self._msg_id, self._index = "", -1
            return b"" if (event.msg_id, event.index) in self._seen else self._whole(kind, event)
        if event.type not in ("text", "refusal"):
            return b""
        self._seen.add((event.msg_id, event.index))
        data = self._piece(kind, event)
        if kind in _TEXT_TYPES and event.type == "text":
            self._msg_id, self._index = event.msg_id, event.index
        return data

    def _whole(self, kind: str, event: ContentEvent) -> bytes:
        if kind == "mcp_approval_request" and event.type == "data":
            return b""
        return self._piece(kind, event)

    def _piece(self, kind: str, event: ContentEvent) -> bytes:
        text = part_text(event)
        if not text:
            return b""
        if kind == "reasoning":
            return self._delta({"reasoning_content": text})
        if event.type == "refusal":
            return self._delta({"refusal": text})
        return self._text(event.msg_id, text) if kind in (*_TEXT_TYPES, "mcp_approval_request") else b""

    def _text(self, message_id: str, text: str) -> bytes:
        if self._written not in ("", message_id):
            text = BETWEEN + text
        self._written = message_id
        return self._delta({"content": text})

    # Tool calls of the client.

    def _call_delta(self, event: ContentEvent) -> bytes:
        call = self._calls.setdefault(event.msg_id, _Call())
        if not isinstance(event.data, Mapping):
            return b""
        call.call_id = call.call_id or json_text(event.data.get("call_id") or "")
        call.name = call.name or json_text(event.data.get("name") or "")
        more = event.data.get("arguments")
        call.arguments += more if isinstance(more, str) else ""
        return self._send_call(call) if call.call_id and call.name else b""

    def _finish_call(self, event: MessageEvent) -> bytes:
        call, made = self._calls.pop(event.id, None) or _Call(), _call_of(event)
        call.call_id, call.name = call.call_id or made["id"], call.name or made["function"]["name"]
        arguments = made["function"]["arguments"]
        if arguments.startswith(call.arguments):
            call.arguments = arguments
        self._unanswered.add(call.call_id)
        return self._send_call(call)

    def _send_call(self, call: _Call) -> bytes:
        data = b""
        if call.index < 0:
            call.index, self._called = self._called, self._called + 1
            function = {"name": call.name, "arguments": ""}
            first = {"index": call.index, "id": call.call_id, "type": "function", "function": function}
            data = self._delta({"tool_calls": [first]})
        if piece := call.arguments[call.sent :]:
            call.sent += len(piece)
            data += self._delta({"tool_calls": [{"index": call.index, "function": {"arguments": piece}}]})
        return data


def completion_of(
    frame: Frame, created_at: int, messages: Sequence[MessageEvent], end: ResponseEvent | None
) -> dict[str, Any]:
    """Return the completion of a turn: that of a run that has ended, or asks (`end` is None).

    Raises RunFailed: the run has not completed.
    """
    if end is not None and end.status != "completed" and not _was_too_large(end):
        raise RunFailed(end)
    texts: list[str] = []
    reasoning: list[str] = []
    refusals: list[str] = []
    calls: list[dict[str, Any]] = []
    unanswered: set[str] = set()
    for event in messages:
        parts = event.content or ()
        question = question_in(event)
        if event.type in _TEXT_TYPES or event.type == "mcp_approval_request":
            shown = [part for part in parts if event.type != "mcp_approval_request" or part.type != "data"]
            refusals += [part.refusal for part in shown if part.type == "refusal"]
            text = "".join(part_text(part) for part in shown if part.type != "refusal")
            texts += [each for each in (text, event.message or "") if each]
        elif event.type == "reasoning":
            reasoning += [part_text(part) for part in parts]
        elif event.type == "function_call":
            calls.append(_call_of(event))
            unanswered.add(calls[-1]["id"])
        elif event.type == "function_call_output":
            unanswered.discard(str(call_data(event).get("call_id")))
        if question is not None:
            calls.append(_question_call(question, frame.turn))
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


def _call_of(event: MessageEvent) -> dict[str, Any]:
    data = call_data(event)
    arguments = data.get("arguments")
    function = {
        "name": json_text(data.get("name") or ""),
        "arguments": "{}" if arguments is None else json_text(arguments),
    }
    return {"id": json_text(data.get("call_id") or ""), "type": "function", "function": function}


def _question_call(question: Mapping[str, Any], turn: TurnId) -> dict[str, Any]:
    shown = {
        name: question[name]
        for name in ("question", "schema", "expires_at", "fault")
        if question.get(name) is not None
    }
    function = {"name": str(question.get("name")), "arguments": json_text(shown)}
    return {"id": call_id_of(str(question["id"]), turn.run_id), "type": "function", "function": function}


def _was_too_large(end: ResponseEvent) -> bool:
    return end.error is not None and end.error.code == "answer_too_large"
