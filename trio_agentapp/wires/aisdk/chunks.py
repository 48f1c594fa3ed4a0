"""The events of a run as chunks of a UI message stream."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from ...protocol.events import ContentEvent, MessageEvent, ResponseEvent, StateEvent
from ...protocol.json_patch import apply
from ...protocol.sse import DONE, PREAMBLE
from ..part_stream import OpenMessage, PartStream, data_frame, whole_of
from ..questions import QuestionId

__all__ = ["UIChunks"]

QUESTION_TOOL = "ask"
"""The name of the tool call as which a question is shown."""


class UIChunks(PartStream):
    """Writes a run as the chunks of one UI message.

    Args:
        run_id, session_id: are sent as metadata of the message.
        message_id: of the message that the client continues; None: a new one.
        answered: the questions that the client has answered, at which its message had ended.
        live_state: the state of the run at present, if it is known.
    """

    def __init__(
        self,
        *,
        run_id: str,
        session_id: str,
        message_id: str | None,
        answered: Sequence[QuestionId],
        live_state: Callable[[], Mapping[str, Any] | None],
        is_open: Callable[[str], bool],
        on_question: Callable[[], object],
    ) -> None:
        super().__init__(is_open=is_open, on_question=on_question)
        self._run_id = run_id
        self._resumed = bool(answered)
        self._asked = {each.question_id: str(each) for each in answered}
        """The tool calls as which questions are shown."""
        self._live_state = live_state
        self._shown_state: Any = None
        self._calls: set[str] = set()
        metadata = {"runId": run_id, "sessionId": session_id}
        start = {"type": "start", "messageId": message_id or f"msg_{run_id}", "messageMetadata": metadata}
        self.preamble = PREAMBLE + data_frame(start)

    def text_begins(self, message: OpenMessage, part: int) -> bytes:
        return data_frame({"type": f"{message.kind}-start", "id": message.part_id(part)})

    def text_head(self, message: OpenMessage, part: int) -> bytes:
        id = orjson.dumps(message.part_id(part))
        return b'data: {"type":"%b-delta","id":%b,"delta":' % (message.kind.encode(), id)

    def text_ends(self, message: OpenMessage, part: int) -> bytes:
        return data_frame({"type": f"{message.kind}-end", "id": message.part_id(part)})

    def message_ends(self, message: OpenMessage) -> bytes:  # noqa: ARG002  a UI message is the whole answer
        return b""

    def call_begins(self, message: OpenMessage) -> bytes:
        call = message.call
        self._calls.add(call.id)
        return data_frame({"type": "tool-input-start", "toolCallId": call.id, "toolName": call.name})

    def call_grows(self, message: OpenMessage, piece: str) -> bytes:
        return data_frame({"type": "tool-input-delta", "toolCallId": message.call.id, "inputTextDelta": piece})

    def call_ends(self, message: OpenMessage, arguments: str) -> bytes:
        call = message.call
        chunk = {"toolCallId": call.id, "toolName": call.name}
        try:
            value = orjson.loads(arguments or "{}")
        except orjson.JSONDecodeError:
            fault = "The arguments of this call are not JSON."
            return data_frame({"type": "tool-input-error", **chunk, "input": arguments, "errorText": fault})
        return data_frame({"type": "tool-input-available", **chunk, "input": value})

    def result(self, message: OpenMessage, call_id: str, output: Any) -> bytes:  # noqa: ARG002  it names its call
        frames = b""
        if call_id not in self._calls and not self._resumed:
            # A client takes no result without its call.
            call = {"toolCallId": call_id, "toolName": "tool", "input": {}}
            frames = data_frame({"type": "tool-input-available", **call})
        return frames + data_frame({"type": "tool-output-available", "toolCallId": call_id, "output": output})

    def medium(self, message: OpenMessage, part: ContentEvent) -> bytes:  # noqa: ARG002  as message_ends
        if part.type == "data":
            return data_frame(_data_chunk(part))
        return data_frame(_file_chunk(part.type, part.payload or {}))

    def other(self, event: MessageEvent) -> bytes:
        return data_frame({"type": f"data-{event.type}", "id": event.id, "data": whole_of(event)})

    def state_changes(self, event: StateEvent) -> bytes:
        if event.state is not None:
            self._shown_state = event.state
        elif self._shown_state is not None:
            self._shown_state = apply(self._shown_state, event.patch or ())
        elif (state := self._live_state()) is not None:
            # The client has the beginning of the stream; what the patch is for is not known here.
            return data_frame({"type": "data-state", "id": "state", "data": state})
        else:
            return b""
        return data_frame({"type": "data-state", "id": "state", "data": self._shown_state})

    def step_begins(self, number: int) -> bytes:  # noqa: ARG002  steps have no names
        return data_frame({"type": "start-step"})

    def step_ends(self, number: int) -> bytes:  # noqa: ARG002
        return data_frame({"type": "finish-step"})

    def question(self, event: MessageEvent, data: Mapping[str, Any], waits: bool) -> bytes:
        question = str(QuestionId.of(self._run_id, event, data))
        id, fault = str(data.get("id")), data.get("fault")
        asked = {name: data[name] for name in ("question", "schema", "fault") if data.get(name) is not None}
        asked["kind"] = data.get("name")
        frames = b""
        if (earlier := self._asked.get(id)) is not None:
            error = {"toolCallId": earlier, "errorText": str(fault or "The answer was not accepted.")}
            frames = data_frame({"type": "tool-output-error", **error})
        self._asked[id] = question
        frames += self.enter_step()
        # The call has the same id as the approval: a client that answers with an output sends only that.
        call = {"toolCallId": question, "toolName": QUESTION_TOOL, "input": asked, "dynamic": True}
        frames += data_frame({"type": "tool-input-available", **call})
        request = {"type": "tool-approval-request", "approvalId": question, "toolCallId": question}
        if isinstance(text := data.get("question"), str):
            request["reason"] = text
        frames += data_frame(request)
        return frames + self.close_open() + _finish("tool-calls", None) if waits else frames

    def answer(self, event: MessageEvent, data: Mapping[str, Any]) -> bytes:  # noqa: ARG002  its data is all
        call_id = self._asked.get(str(data.get("approval_request_id")))
        if call_id is None:
            return b""
        self._result_seen = True
        if data.get("approve") is False:
            return data_frame({"type": "tool-output-denied", "toolCallId": call_id})
        output = data.get("answer", data.get("approve"))
        return data_frame({"type": "tool-output-available", "toolCallId": call_id, "output": output})

    def end(self, event: ResponseEvent) -> bytes:
        if event.status == "completed":
            return _finish("tool-calls" if self.unanswered else "stop", event.usage)
        text = "The run did not complete." if event.error is None else event.error.message
        if event.status == "canceled":
            return data_frame({"type": "abort", "reason": text}) + DONE
        return data_frame({"type": "error", "errorText": text}) + _finish("error", event.usage)


def _finish(reason: str, usage: Mapping[str, Any] | None) -> bytes:
    chunk: dict[str, Any] = {"type": "finish", "finishReason": reason}
    if usage is not None:
        chunk["messageMetadata"] = {"usage": usage}
    return data_frame(chunk) + DONE


def _data_chunk(part: ContentEvent) -> dict[str, Any]:
    """The chunk of a data part: a source or a named part of data if it is one, else `data-content`."""
    data = part.data
    kind = data.get("type") if isinstance(data, Mapping) else None
    id = f"{part.msg_id}.{part.index}"
    if kind == "source-url" and isinstance(data.get("url"), str):
        chunk = {"type": kind, "sourceId": str(data.get("sourceId") or id), "url": data["url"]}
        return chunk | ({"title": str(data["title"])} if data.get("title") else {})
    if kind == "source-document":
        chunk = {"type": kind, "sourceId": str(data.get("sourceId") or id)}
        chunk |= {"mediaType": str(data.get("mediaType") or "text/plain"), "title": str(data.get("title") or "")}
        return chunk | ({"filename": str(data["filename"])} if data.get("filename") else {})
    if isinstance(kind, str) and kind.startswith("data-") and "data" in data:
        chunk = {"type": kind, "data": data["data"]}
        chunk |= {"id": str(data["id"])} if data.get("id") else {}
        return chunk | ({"transient": True} if data.get("transient") is True else {})
    return {"type": "data-content", "id": id, "data": data}


def _file_chunk(kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    name = payload.get("filename")
    if kind == "audio":
        media = f"audio/{payload.get('format') or 'wav'}"
        return {"type": "file", "mediaType": media, "url": f"data:{media};base64,{payload.get('data') or ''}"}
    url = payload.get(f"{kind}_url")
    if kind == "file" and url is None:
        data = payload.get("file_data")
        if data is None:
            return {"type": "data-file", "data": dict(payload)}
        media = _media_type(name) or "application/octet-stream"
        url = data if data.startswith("data:") else f"data:{media};base64,{data}"
    url = url or ""
    if url.startswith("data:"):
        media = url[5:].partition(",")[0].partition(";")[0]
    else:
        media = _media_type(name) or _media_type(url) or ("application/octet-stream" if kind == "file" else kind)
    return {"type": "file", "mediaType": media or "application/octet-stream", "url": url}


def _media_type(name: Any) -> str | None:
    return mimetypes.guess_type(name)[0] if isinstance(name, str) else None
