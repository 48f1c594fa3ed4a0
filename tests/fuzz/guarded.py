"""Attacks of one user on a guarded app, while another user's chat goes on beside them.

The attacker, `mallory`, has a token of her own and knows all ids of `anna`. She must not see, stop or change
anything of anna's, whose stream has to be complete in the end.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from random import Random
from typing import Any

from .attacks import Outcome
from .frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, RawSocket, close_payload, frame
from .mutations import BODIES, mutated
from .target import ANNA_TOKEN, TIMEOUT, Target, fault_of

__all__ = ["HEADERS", "by_frames", "by_requests"]

GRACE = 0.002
"""Seconds for the answer to a frame. Many frames have none."""

HEADERS = {"Authorization": "Bearer mallory"}
ANNA = {"Authorization": f"Bearer {ANNA_TOKEN}", "Content-Type": "application/json"}
SESSION = "anna-chat"
RUN = "{run}"
"""Stands for the id of anna's run."""

MESSAGE = {"role": "user", "type": "message", "content": [{"type": "text", "text": "end"}]}
NAMES = {"user_id": "anna", "session_id": SESSION, "id": RUN}
REQUESTS: list[tuple[str, str, Any]] = [
    ("POST", "/process", {**BODIES["POST /process"], **NAMES}),
    ("POST", "/process", {**BODIES["POST /process"], "stream": True}),
    ("POST", "/process/task", {"input": "hi", **NAMES}),
    ("GET", f"/process/task/{RUN}", None),
    ("POST", f"/process/task/{RUN}/cancel", {}),
    ("POST", "/stop", {"input": [], "run_id": RUN, **NAMES}),
    ("POST", "/stop?wait=1", {"session_id": SESSION}),
    ("POST", "/runs/cancel", {"user_id": "anna", "session_id": SESSION, "run_ids": [RUN]}),
    ("POST", f"/runs/{RUN}/cancel?user_id=anna", {}),
    ("POST", f"/runs/{RUN}/input?user_id=anna", MESSAGE),
    ("GET", f"/runs/{RUN}?user_id=anna", None),
    ("GET", f"/runs/{RUN}/stream?starting_after=3", None),
    ("GET", f"/runs/{RUN}/tree", None),
    ("GET", f"/runs/{RUN}/wait", None),
    ("GET", f"/runs?user_id=anna&session_id={SESSION}&limit=5", None),
    ("GET", f"/questions?user_id=anna&session_id={SESSION}", None),
    ("GET", f"/sessions/{SESSION}?user_id=anna", None),
    ("GET", f"/sessions/{SESSION}/history?user_id=anna&limit=3", None),
    ("POST", "/v1/responses", {**BODIES["POST /v1/responses"], "user": "anna", "conversation": {"id": SESSION}}),
    ("GET", f"/v1/responses/resp_{RUN}?stream=true", None),
    ("POST", f"/v1/responses/resp_{RUN}/cancel", {}),
    ("POST", "/v1/chat/completions", {**BODIES["POST /v1/chat/completions"], "user": "anna"}),
    ("POST", "/a2a", {"jsonrpc": "2.0", "id": 1, "method": "CancelTask", "params": {"id": RUN}}),
    ("POST", "/a2a", {"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask", "params": {"id": RUN}}),
    ("POST", "/chore", {"x": 1}),
    ("GET", f"/chore/{RUN}", None),
    ("GET", "/metrics", None),
    ("GET", "/admin/runs", None),
    ("POST", "/admin/drain", None),
    ("POST", "/admin/shutdown", None),
]
CREDENTIALS = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer anna",
    "Basic bWFsbG9yeTo=",
    "Bearer mallory, Bearer anna",
]
STRANGE_HEADERS = [
    "X-Forwarded-For: 127.0.0.1", "X-User-Id: anna", "Last-Event-ID: 99999999999999999999", "Last-Event-ID: -5",
    "Idempotency-Key: k", "traceparent: 00-zz-zz-01", "Origin: http://evil.example",
    "Content-Encoding: gzip", "Expect: 100-continue", "Range: bytes=0-", "X-Agent-Timeout: nan", "Accept: \x7f/*",
    "Cookie: user=anna", "Accept: text/event-stream", "Upgrade: h2c", "Transfer-Encoding: chunked",
]  # fmt: skip
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "G@T"]
SOCKET_MESSAGES: list[dict[str, Any]] = [
    {"type": "init", "token": "anna"},
    {"type": "start", "id": "a", "request": {**BODIES["POST /process"], **NAMES}},
    {"type": "start", "id": "b", "request": {"input": "hi"}, "traceparent": "00-zz-zz-01"},
    {"type": "attach", "id": "c", "run_id": RUN, "starting_after": 2, "user_id": "anna"},
    {"type": "stop", "id": "c", "wait": True},
    {"type": "input", "id": "c", "message": MESSAGE},
    {"type": "detach", "id": "c"},
    {"type": "ping"},
]


class Anna:
    """The other user: a thread reads her chat, from its first event to the one that she asks for."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection = target.connect()
        body = {"input": "hi", "session_id": SESSION, "stream": True}
        self._connection.request("POST", "/process", body=json.dumps(body), headers=ANNA)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        self.run_id = self._answer.headers["X-Run-Id"]
        self._events: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            for line in self._answer:
                if line.startswith(b"data: "):
                    self._events.append(json.loads(line[6:]))

    def end(self) -> list[str]:
        """End the chat, and return what was wrong with it."""
        found = [] if self._thread.is_alive() else ["anna's chat has ended before she ended it"]
        connection = self._target.connect()
        connection.request("POST", f"/runs/{self.run_id}/input", body=json.dumps(MESSAGE), headers=ANNA)
        connection.getresponse().read()
        connection.close()
        self._thread.join(TIMEOUT)
        if self._thread.is_alive():
            found.append("anna's chat does not end")
        self._connection.close()
        self._thread.join()
        numbers = [event["sequence_number"] for event in self._events]
        if numbers != list(range(len(numbers))):
            found.append(f"anna's events are not complete: {numbers[:50]}")
        said = [event["text"] for event in self._events if event["object"] == "content" and event["delta"]]
        if said != [f"secret-{number} " for number in range(len(said))]:
            found.append(f"anna's chat is not complete: {said[:50]}")
        last = self._events[-1] if self._events else {}
        if last.get("status") != "completed":
            found.append(f"anna's chat ended with {str(last)[:300]}")
        return found


def by_requests(target: Target, count: int, number: int = 0) -> Outcome:
    """Mutated requests for every route in turn; methods, paths, headers and whole requests are mutated, too."""
    outcome = Outcome()
    random = Random(number)
    began = time.monotonic()
    complaints = len(target.complaints())
    anna = Anna(target)
    connection: socket.socket | None = None
    for place in range(count):
        sent, whole = _request(REQUESTS[place % len(REQUESTS)], anna.run_id, random)
        started = time.monotonic()
        try:
            connection = connection or target.connect().sock
            answer, body = _exchange(connection, sent, whole)
        except (OSError, http.client.HTTPException):
            # A server may close a connection whose framing is broken, or that has waited too long.
            outcome.count(0, time.monotonic() - started)
            if time.monotonic() - started > TIMEOUT:
                outcome.violations.append(f"hung for {sent[:500]!r}")
            closing = True
        else:
            outcome.count(answer.status, time.monotonic() - started)
            fault = fault_of(answer.status, body, answer.status < 300, sent.decode("latin-1"))
            if b"secret-" in body:
                fault = f"shows anna's chat: {body[:500]!r}"
            if fault is not None and answer.status not in (501, 505):
                outcome.violations.append(f"{fault} for {sent[:500]!r}")
            closing = answer.will_close or not whole
        if closing and connection is not None:
            connection.close()
            connection = None
    if connection is not None:
        connection.close()
    outcome.violations += anna.end() + target.complaints()[complaints:]
    outcome.seconds = time.monotonic() - began
    return outcome


def _request(asked: tuple[str, str, Any], run_id: str, random: Random) -> tuple[bytes, bool]:
    """The bytes of a request, and whether its framing is right."""
    method, path, body = asked
    if random.random() < 0.05:
        method = random.choice(METHODS)
    raw, media = b"", ""
    if body is not None:
        raw, media = mutated(body, random)
    raw = raw.replace(RUN.encode(), run_id.encode())
    path = path.replace(RUN, run_id)
    if random.random() < 0.2:
        at = random.randrange(1, len(path) + 1)
        path = path[:at] + random.choice(("%00", "/", "..", "%2f", "%ff", "?", "&", "=", "%", "\u00e9")) + path[at:]
    headers = ["Host: 127.0.0.1", f"Content-Length: {len(raw)}"]
    if media:
        headers.append(f"Content-Type: {media}")
    token = "Bearer mallory" if random.random() < 0.8 else random.choice(CREDENTIALS)
    if token:
        headers.append(f"Authorization: {token}")
    whole = method not in ("HEAD", "CONNECT") and method in METHODS[:8]
    if random.random() < 0.1:
        extra = random.choice(STRANGE_HEADERS)
        headers.append(extra)
        whole = whole and not extra.startswith(("Transfer", "Upgrade", "Expect", "Host"))
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in headers) + "\r\n"
    sent = head.encode("latin-1", "replace") + raw
    if random.random() < 0.1:
        for _ in range(random.randrange(1, 4)):
            at = random.randrange(min(len(sent), 400))
            sent = sent[:at] + random.choice((b"", b"\r\n", b"\0", b":", b" ", b"\xff", b"9")) + sent[at + 1 :]
        whole = False
    return sent, whole


def _exchange(connection: socket.socket, sent: bytes, whole: bool) -> tuple[http.client.HTTPResponse, bytes]:
    # The response may be there although the server has not read the whole body.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(sent)
        if not whole:
            # What is missing never comes.
            connection.shutdown(socket.SHUT_WR)
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer, answer.read()


def by_frames(target: Target, count: int, number: int = 0) -> Outcome:
    """Mutated frames on sockets of the attacker. A socket that the server closes is followed by another."""
    outcome = Outcome()
    random = Random(number)
    began = time.monotonic()
    complaints = len(target.complaints())
    anna = Anna(target)
    connection: RawSocket | None = None
    for _ in range(count):
        sent = _frame(anna.run_id, random)
        started = time.monotonic()
        found: list[Frame | None] = []
        try:
            connection = connection or RawSocket(target.port, "/ws", HEADERS)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.send(sent)
            found = connection.arrived(GRACE)
        except ConnectionError:
            found = [None]
        except TimeoutError:
            outcome.violations.append(f"hung in the middle of a frame for {sent[:300]!r}")
            found = [None]
        outcome.count(next((each.code or 0 for each in found if each and each.code), 0), time.monotonic() - started)
        for each in found:
            if each is not None and each.code in (1011, 1006):
                outcome.violations.append(f"closed with {each} for {sent[:300]!r}")
            if each is not None and b"secret-" in each.payload:
                outcome.violations.append(f"shows anna's chat: {each.payload[:300]!r} for {sent[:300]!r}")
        if connection is not None and any(each is None or each.opcode == CLOSE for each in found):
            connection.close()
            connection = None
    if connection is not None:
        connection.close()
    outcome.violations += anna.end() + target.complaints()[complaints:]
    outcome.seconds = time.monotonic() - began
    return outcome


def _frame(run_id: str, random: Random) -> bytes:
    payload, _ = mutated(random.choice(SOCKET_MESSAGES), random)
    payload = payload.replace(RUN.encode(), run_id.encode())
    kind = random.random()
    if kind < 0.75:
        sent = frame(TEXT, payload)
    elif kind < 0.85:
        half = len(payload) // 2
        sent = frame(TEXT, payload[:half], fin=False) + frame(CONTINUATION, payload[half:])
    elif kind < 0.95:
        opcode = random.choice((BINARY, CONTINUATION, PING, PONG, 3, 8, 11))
        small = close_payload(random.choice((1000, 1005, 4000, 65535))) if opcode == CLOSE else payload[:200]
        sent = frame(opcode, small, fin=random.random() < 0.8, rsv=random.choice((0, 0, 0, 1, 7)))
    else:
        sent = frame(TEXT, payload, masked=False)
    if random.random() < 0.15 and sent:
        at = random.randrange(min(len(sent), 20))
        sent = sent[:at] + bytes([random.randrange(256)]) + sent[at + 1 :]
    return sent
