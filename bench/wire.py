"""What both products send: an HTTP/1.1 answer, and server-sent events inside it. No sockets, no clock.

The two products number the same JSON events. Ours repeats the number in an `id:` line before the data; the replaced
product has no such line, and reports a refusal as `data: {"error": ...}` with status 200.
"""

import json
import re
from functools import partial
from typing import Any

WITH_ID = b'id: %d\ndata: {"sequence_number":%d,'
WITHOUT_ID = b'data: {"sequence_number":%d,'
DELTA = b'"delta":true'
MADE = re.compile(rb"\"text\":\"token @([0-9.]+) \"}$")
"""When a stamped delta was made; the events that repeat it, at the end, have another form."""


class ProtocolError(Exception):
    """The answer is not what a chat's answer has to be; the text says what came instead."""


class Answer:
    """One HTTP answer, as far as it has arrived."""

    def __init__(self) -> None:
        self.status = 0
        self.finished = False
        self._wire = bytearray()
        self._chunked = False
        self._length = 0

    def feed(self, data: bytes) -> bytes:
        """Returns the content that `data` has completed. Raises ProtocolError for a head it does not understand."""
        self._wire += data
        if not self.status and not self._head():
            return b""
        return self._chunks() if self._chunked else self._rest()

    def _head(self) -> bool:
        head, separator, rest = self._wire.partition(b"\r\n\r\n")
        if not separator:
            return False
        self.status = int(head.split(None, 2)[1])
        head = head.lower()
        self._chunked = b"\r\ntransfer-encoding: chunked" in head
        if length := re.search(rb"\r\ncontent-length: *(\d+)", head):
            self._length = int(length[1])
        elif not self._chunked:
            raise ProtocolError("the answer has neither chunks nor a length")
        self._wire = rest
        return True

    def _chunks(self) -> bytes:
        wire, at = self._wire, 0
        parts = []
        while not self.finished and (line := wire.find(b"\r\n", at)) != -1:
            start = line + 2
            stop = start + int(wire[at:line], 16)
            if len(wire) < stop + 2:
                break
            parts.append(bytes(wire[start:stop]))
            self.finished = start == stop
            at = stop + 2
        del wire[:at]
        return b"".join(parts)

    def _rest(self) -> bytes:
        content = bytes(self._wire[: self._length])
        del self._wire[: self._length]
        self._length -= len(content)
        self.finished = self._length == 0
        return content


class Events:
    """The events of one chat: checks that their numbers have no holes, and keeps the last one."""

    def __init__(self) -> None:
        self.count = 0
        self._text = b""
        self._last = b""
        self._has_id: bool | None = None

    def feed(self, content: bytes) -> list[bytes]:
        """Returns the frames of the events that `content` has completed. Raises ProtocolError."""
        *frames, self._text = (self._text + content).split(b"\n\n")
        events = []
        for frame in frames:
            if self._is_next(frame):
                self.count += 1
                self._last = frame
                events.append(frame)
            elif b"data:" in frame:
                raise ProtocolError(f"event {self.count} expected, not {frame[:200]!r}")
        return events

    def _is_next(self, frame: bytes) -> bool:
        if self._has_id is None and b"data:" in frame:
            self._has_id = frame.startswith(b"id:")
        number = self.count
        return frame.startswith(WITH_ID % (number, number) if self._has_id else WITHOUT_ID % number)

    def verdict(self) -> str | None:
        """None if the chat has completed; else how it ended."""
        if not self._last:
            return "no event at all"
        event = json.loads(self._last.partition(b"data: ")[2])
        if event["object"] == "response" and event["status"] == "completed":
            return None
        return f"ended by {event['object']} {event['status']}: {event.get('error')}"


class FrontEndEvents:
    """The events of one chat in the protocol of a front end, which have no numbers."""

    def __init__(self, delta: bytes, end: bytes) -> None:
        self._delta, self._end = delta, end
        self._text = b""
        self._last = b""

    def feed(self, content: bytes) -> list[bytes]:
        """Returns the frames that `content` has completed, those of deltas as `Events` has them."""
        *frames, self._text = (self._text + content).split(b"\n\n")
        events = [frame for frame in frames if b"data:" in frame]
        if events:
            self._last = events[-1]
        return [frame.replace(self._delta, DELTA) for frame in events]

    def verdict(self) -> str | None:
        return None if self._end in self._last else f"ended by {self._last[:200]!r}"


def a2a_body(session: str, model: str, rate: float, count: int) -> dict[str, Any]:
    message = {"messageId": "m", "contextId": session, "role": "ROLE_USER", "parts": [{"text": "x"}]}
    metadata = {"user_id": "bench", "model": model, "rate": rate, "count": count}
    params = {"message": message, "metadata": metadata}
    return {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": params}


def completions_body(session: str, model: str, rate: float, count: int) -> dict[str, Any]:
    body = chat_body(session, model, rate, count)
    return {**body, "stream": True, "messages": body["input"]}


def responses_body(session: str, model: str, rate: float, count: int) -> dict[str, Any]:
    return {**chat_body(session, model, rate, count), "stream": True}


def ag_ui_body(session: str, model: str, rate: float, count: int) -> dict[str, Any]:
    said = [{"id": "m", "role": "user", "content": "x"}]
    props = {"user_id": "bench", "model": model, "rate": rate, "count": count}
    return {"threadId": session, "runId": f"run-{session}", "messages": said, "forwardedProps": props}


def ai_sdk_body(session: str, model: str, rate: float, count: int) -> dict[str, Any]:
    said = [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "x"}]}]
    return {"id": session, "messages": said, "user_id": "bench", "model": model, "rate": rate, "count": count}


def request(host: str, path: str, body: dict[str, Any]) -> bytes:
    encoded = json.dumps(body).encode()
    return (
        b"POST %b HTTP/1.1\r\nhost: %b\r\naccept: text/event-stream\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (path.encode(), host.encode(), len(encoded), encoded)
    )


def chat_body(session: str, model: str, rate: float, count: int) -> dict[str, Any]:
    """A request that both products understand: the replaced one needs a list of parts, and both ids."""
    return {
        "input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        "user_id": "bench",
        "session_id": session,
        "model": model,
        "rate": rate,
        "count": count,
    }


PROTOCOLS = {
    "process": ("/process", chat_body, Events),
    "a2a": (
        "/a2a?A2A-Version=1.0",
        a2a_body,
        partial(FrontEndEvents, b'"artifactUpdate"', b"TASK_STATE_COMPLETED"),
    ),
    "responses": (
        "/v1/responses",
        responses_body,
        partial(FrontEndEvents, b'"type":"response.output_text.delta"', b'"type":"response.completed"'),
    ),
    "completions": (
        "/v1/chat/completions",
        completions_body,
        partial(FrontEndEvents, b'"delta":{"content"', b"[DONE]"),
    ),
    "ag-ui": (
        "/ag-ui",
        ag_ui_body,
        partial(FrontEndEvents, b'"type":"TEXT_MESSAGE_CONTENT"', b'"type":"RUN_FINISHED"'),
    ),
    "ai-sdk": ("/ai-sdk/chat", ai_sdk_body, partial(FrontEndEvents, b'"type":"text-delta"', b"[DONE]")),
}
"""For each protocol its path, its request, and what reads its events."""
