"""The events of a run as the chunks of a streamed chat completion: `ChatCompletionChunk` of OpenAI's clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import orjson

from ...protocol.events import ContentEvent, Event, MessageEvent, ResponseEvent
from ...protocol.sse import DONE
from ...runs import Gap
from ...runs.run import Run
from ..growing_call import GrowingCall
from ..openai.errors import error_body
from ..openai.parts import call_data, part_text
from ..openai.turns import go_on_unwatched, question_in
from ..openai.usage import Usage, usage_of
from .completion import BETWEEN, TEXT_TYPES, Frame, RunFailed, call_of, was_too_large
from .question_call import question_call

__all__ = ["CompletionStream"]

PREAMBLE = b": stream\n\n"


@attrs.define
class _Call(GrowingCall):
    index: int = -1
    """Its place among the tool calls; -1: it was not sent."""


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
        if event.status == "completed" or was_too_large(event):
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
        call = question_call(question, self._frame.turn)
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
        if kind in TEXT_TYPES and event.type == "text":
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
        return self._text(event.msg_id, text) if kind in (*TEXT_TYPES, "mcp_approval_request") else b""

    def _text(self, message_id: str, text: str) -> bytes:
        if self._written not in ("", message_id):
            text = BETWEEN + text
        self._written = message_id
        return self._delta({"content": text})

    # Tool calls of the client.

    def _call_delta(self, event: ContentEvent) -> bytes:
        call = self._calls.setdefault(event.msg_id, _Call())
        return self._send_call(call) if isinstance(event.data, Mapping) and call.grow(event.data) else b""

    def _finish_call(self, event: MessageEvent) -> bytes:
        call, made = self._calls.pop(event.id, None) or _Call(), call_of(event)
        call.id, call.name = call.id or made["id"], call.name or made["function"]["name"]
        call.complete(made["function"]["arguments"])
        self._unanswered.add(call.id)
        return self._send_call(call)

    def _send_call(self, call: _Call) -> bytes:
        data = b""
        if not call.begun:
            call.begun, call.index, self._called = True, self._called, self._called + 1
            function = {"name": call.name, "arguments": ""}
            first = {"index": call.index, "id": call.id, "type": "function", "function": function}
            data = self._delta({"tool_calls": [first]})
        if piece := call.take():
            data += self._delta({"tool_calls": [{"index": call.index, "function": {"arguments": piece}}]})
        return data
