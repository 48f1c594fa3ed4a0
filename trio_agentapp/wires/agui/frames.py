"""The events of a run as AG-UI events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from ...protocol.content import payload_of
from ...protocol.events import ContentEvent, MessageEvent, ResponseEvent, StateEvent
from ...protocol.payload import json_text
from ...protocol.sse import PREAMBLE
from ..part_stream import OpenMessage, PartStream, data_frame, whole_of
from ..questions import QuestionId
from .messages import snapshot

__all__ = ["PROTOCOL_VERSION", "AGUIFrames", "run_error"]

PROTOCOL_VERSION = "1.0"

CANCELED = "CANCELED"
"""The code of a run that was stopped."""

_ROLES = ("developer", "system", "assistant", "user")

_COUNTS = (
    ("inputTokens", ("input_tokens", "prompt_tokens", "inputTokens")),
    ("outputTokens", ("output_tokens", "completion_tokens", "outputTokens")),
    ("totalTokens", ("total_tokens", "totalTokens")),
)
"""For each count of AG-UI, the names under which handlers have it in `run.usage`."""


def run_error(message: str, code: str) -> dict[str, Any]:
    """Return the event that says why a run has not completed, or did not start."""
    return {"type": "RUN_ERROR", "message": message, "code": code}


class AGUIFrames(PartStream):
    """Writes a run as AG-UI events.

    Args:
        thread_id, client_run_id: the ids that the client has given.
        run_id: our run, which a resumed question has under another id of the client.
        asked: the messages of the request, as the client has sent them.
        snapshot_always: send all messages again at the end, not only after lost events.
        gives_up: the client wants the run to be stopped, instead of answering it.
    """

    def __init__(
        self,
        *,
        thread_id: str,
        client_run_id: str,
        run_id: str,
        parent_run_id: str | None,
        asked: Sequence[Mapping[str, Any]],
        snapshot_always: bool,
        gives_up: bool,
        is_open: Callable[[str], bool],
        on_question: Callable[[], object],
    ) -> None:
        super().__init__(is_open=is_open, on_question=on_question)
        self._ids = {"threadId": thread_id, "runId": client_run_id}
        self._run_id = run_id
        self._asked = asked
        self._snapshot_always = snapshot_always
        self._gives_up = gives_up
        started = {"type": "RUN_STARTED", **self._ids, "protocolVersion": PROTOCOL_VERSION}
        if parent_run_id is not None:
            started["parentRunId"] = parent_run_id
        self.preamble = PREAMBLE + data_frame(started)

    def text_begins(self, message: OpenMessage, part: int) -> bytes:
        if message.kind == "reasoning":
            begin = b"" if message.begun else data_frame({"type": "REASONING_START", "messageId": message.id})
            id = message.part_id(part)
            return begin + data_frame({"type": "REASONING_MESSAGE_START", "messageId": id, "role": "reasoning"})
        if message.begun:
            return b""
        role = message.role if message.role in _ROLES else "assistant"
        return data_frame({"type": "TEXT_MESSAGE_START", "messageId": message.id, "role": role})

    def text_head(self, message: OpenMessage, part: int) -> bytes:
        reasons = message.kind == "reasoning"
        return b'data: {"type":"%b","messageId":%b,"delta":' % (
            b"REASONING_MESSAGE_CONTENT" if reasons else b"TEXT_MESSAGE_CONTENT",
            orjson.dumps(message.part_id(part) if reasons else message.id),
        )

    def text_ends(self, message: OpenMessage, part: int) -> bytes:
        if message.kind != "reasoning":
            return b""
        return data_frame({"type": "REASONING_MESSAGE_END", "messageId": message.part_id(part)})

    def message_ends(self, message: OpenMessage) -> bytes:
        if message.kind == "reasoning":
            return data_frame({"type": "REASONING_END", "messageId": message.id})
        if message.kind == "text":
            return data_frame({"type": "TEXT_MESSAGE_END", "messageId": message.id})
        return b""

    def call_begins(self, message: OpenMessage) -> bytes:
        call = {"toolCallId": message.call.id, "toolCallName": message.call.name, "parentMessageId": message.id}
        return data_frame({"type": "TOOL_CALL_START", **call})

    def call_grows(self, message: OpenMessage, piece: str) -> bytes:
        return data_frame({"type": "TOOL_CALL_ARGS", "toolCallId": message.call.id, "delta": piece})

    def call_ends(self, message: OpenMessage, arguments: str) -> bytes:  # noqa: ARG002  were sent as they came
        return data_frame({"type": "TOOL_CALL_END", "toolCallId": message.call.id})

    def result(self, message: OpenMessage, call_id: str, output: Any) -> bytes:
        result = {"messageId": message.id, "toolCallId": call_id, "content": json_text(output), "role": "tool"}
        return data_frame({"type": "TOOL_CALL_RESULT", **result})

    def medium(self, message: OpenMessage, part: ContentEvent) -> bytes:
        begin = b"" if message.begun else self.text_begins(message, part.index)
        return begin + _custom(part.type, {"messageId": message.id, **payload_of(part.content)})

    def other(self, event: MessageEvent) -> bytes:
        return _custom(event.type, {"id": event.id, "role": event.role, **whole_of(event)})

    def state_changes(self, event: StateEvent) -> bytes:
        if event.delta:
            return data_frame({"type": "STATE_DELTA", "delta": event.patch})
        return data_frame({"type": "STATE_SNAPSHOT", "snapshot": event.state})

    def step_begins(self, number: int) -> bytes:
        return data_frame({"type": "STEP_STARTED", "stepName": f"step {number}"})

    def step_ends(self, number: int) -> bytes:
        return data_frame({"type": "STEP_FINISHED", "stepName": f"step {number}"})

    def question(self, event: MessageEvent, data: Mapping[str, Any], waits: bool) -> bytes:
        if not waits:
            return b""
        question = QuestionId.of(self._run_id, event, data)
        interrupt: dict[str, Any] = {"id": str(question), "reason": question.kind}
        if isinstance(text := data.get("question"), str):
            interrupt["message"] = text
        if isinstance(schema := data.get("schema"), Mapping):
            interrupt["responseSchema"] = schema
        if isinstance(expires_at := data.get("expires_at"), int | float):
            interrupt["expiresAt"] = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="seconds")
        if (fault := data.get("fault")) is not None:
            interrupt["metadata"] = {"fault": fault}
        return self.close_open() + self._finished({"type": "interrupt", "interrupts": [interrupt]}, None)

    def answer(self, event: MessageEvent, data: Mapping[str, Any]) -> bytes:
        return _custom(event.type, data)

    def end(self, event: ResponseEvent) -> bytes:
        frames = b""
        if self.lossy or self._snapshot_always:
            messages = snapshot(self._asked, event.output or ())
            frames = data_frame({"type": "MESSAGES_SNAPSHOT", "messages": messages})
        if event.status == "completed":
            outcome: dict[str, Any] = {"type": "success"}
            if self.unanswered:
                outcome["pendingToolCallIds"] = [*self.unanswered]
            return frames + self._finished(outcome, event.usage)
        if event.status == "canceled" and self._gives_up:
            # After an error, clients would keep the interrupt.
            return frames + self._finished({"type": "cancelled"}, event.usage)
        error = event.error
        code = CANCELED if event.status == "canceled" else "failed" if error is None else error.code
        text = "The run did not complete." if error is None else error.message
        if event.status == "canceled":
            text = f"The run was stopped (reason: {text})."
        failed = run_error(text, code)
        if usage := _usage(event.usage):
            failed["usage"] = usage
        return frames + data_frame(failed)

    def _finished(self, outcome: Mapping[str, Any], used: Mapping[str, Any] | None) -> bytes:
        finished: dict[str, Any] = {"type": "RUN_FINISHED", **self._ids, "outcome": outcome}
        if usage := _usage(used):
            finished["usage"] = usage
        return data_frame(finished)


def _custom(name: str, value: Any) -> bytes:
    return data_frame({"type": "CUSTOM", "name": name, "value": value})


def _usage(used: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the token counts in what a handler has set as `run.usage`."""
    found: dict[str, Any] = {}
    for name, names in _COUNTS:
        for own in names:
            count = (used or {}).get(own)
            if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**53:
                found[name] = count
                break
    if not found:
        return []
    model = (used or {}).get("model")
    return [{**found, "model": model} if isinstance(model, str) else found]
