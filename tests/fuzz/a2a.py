"""Mutated calls of A2A by one user, while another user's task is live: it must not feel them."""

from __future__ import annotations

import http.client
import json
import time
from random import Random
from typing import Any

from .attacks import Outcome, exchange
from .mutations import mutated
from .target import Target, fault_of

__all__ = ["by_calls"]

MESSAGE = {
    "messageId": "m1",
    "contextId": "c1",
    "role": "ROLE_USER",
    "parts": [{"text": "hi", "mediaType": "text/plain"}, {"data": {"a": 1}}, {"raw": "aGk=", "filename": "f"}],
    "metadata": {"a": 1},
    "extensions": ["https://example.com/x"],
    "referenceTaskIds": ["t1"],
}
OLD_MESSAGE = {
    "kind": "message",
    "messageId": "m1",
    "role": "user",
    "parts": [
        {"kind": "text", "text": "hi"},
        {"kind": "file", "file": {"uri": "https://example.com/a.png", "mimeType": "image/png", "name": "a"}},
        {"kind": "data", "data": {"a": 1}},
    ],
}
CONFIG = {
    "id": "c",
    "url": "https://example.invalid/x",
    "token": "t",
    "authentication": {"scheme": "Bearer", "credentials": "c"},
}
OLD_CONFIG = {**CONFIG, "authentication": {"schemes": ["Bearer"], "credentials": "c"}}

VICTIM = "VICTIM"
"""Stands for the id of the other user's task."""

CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("1.0", "SendMessage", {"message": MESSAGE, "configuration": {"historyLength": 1}, "metadata": {"b": 2}}),
    ("1.0", "SendMessage", {"message": {**MESSAGE, "taskId": VICTIM}}),
    ("1.0", "SendStreamingMessage", {"message": {**MESSAGE, "parts": [{"text": "reply"}]}}),
    ("1.0", "GetTask", {"id": VICTIM, "historyLength": 2}),
    ("1.0", "CancelTask", {"id": VICTIM, "metadata": {}}),
    ("1.0", "SubscribeToTask", {"id": VICTIM}),
    ("1.0", "ListTasks", {"contextId": "c1", "status": "TASK_STATE_COMPLETED", "pageSize": 2, "pageToken": ""}),
    ("1.0", "CreateTaskPushNotificationConfig", {**CONFIG, "taskId": VICTIM}),
    ("1.0", "GetTaskPushNotificationConfig", {"taskId": VICTIM, "id": "c"}),
    ("1.0", "ListTaskPushNotificationConfigs", {"taskId": VICTIM}),
    ("1.0", "DeleteTaskPushNotificationConfig", {"taskId": VICTIM, "id": "c"}),
    ("1.0", "GetExtendedAgentCard", {}),
    ("0.3", "message/send", {"message": OLD_MESSAGE, "configuration": {"blocking": True}}),
    ("0.3", "message/stream", {"message": {**OLD_MESSAGE, "taskId": VICTIM}}),
    ("0.3", "tasks/get", {"id": VICTIM}),
    ("0.3", "tasks/cancel", {"id": VICTIM}),
    ("0.3", "tasks/resubscribe", {"id": VICTIM}),
    ("0.3", "tasks/pushNotificationConfig/set", {"taskId": VICTIM, "pushNotificationConfig": OLD_CONFIG}),
    ("0.3", "tasks/pushNotificationConfig/delete", {"id": VICTIM, "pushNotificationConfigId": "c"}),
]


def by_calls(target: Target, bodies: int, number: int = 0) -> Outcome:
    """Mutated bodies for every method in turn."""
    outcome = Outcome()
    random = Random(number)
    began = time.monotonic()
    connection = target.connect()
    complaints = len(target.complaints())
    before = _begin(connection)
    for count in range(bodies):
        version, method, params = CALLS[count % len(CALLS)]
        named = json.loads(json.dumps(params).replace(VICTIM, before["id"]))
        raw, media = mutated({"jsonrpc": "2.0", "id": count, "method": method, "params": named}, random)
        headers = _headers("attacker", version) | ({"Content-Type": media} if media else {})
        sent = time.monotonic()
        try:
            connection, answer, body = exchange(target, connection, "POST", "/a2a", raw, headers)
        except (OSError, http.client.HTTPException) as exc:
            outcome.count(0, time.monotonic() - sent)
            outcome.violations.append(f"{method}: {exc!r} for {raw[:500]!r}")
            connection.close()
            connection = target.connect()
            continue
        outcome.count(answer.status, time.monotonic() - sent)
        fault = fault_of(answer.status, body, b'"result"' in body) or _fault_of_call(body, before["id"])
        if fault is not None:
            outcome.violations.append(f"{method}: {fault} for {raw[:500]!r}")
        if answer.will_close:
            connection.close()
            connection = target.connect()
    outcome.violations += _differences(connection, before)
    connection.close()
    outcome.violations += target.complaints()[complaints:]
    outcome.seconds = time.monotonic() - began
    return outcome


def _headers(user: str, version: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {user}", "A2A-Version": version}


def _call(connection: http.client.HTTPConnection, method: str, params: Any) -> Any:
    """A call of the victim."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    headers = {**_headers("victim", "1.0"), "Content-Type": "application/json"}
    connection.request("POST", "/a2a", body=body, headers=headers)
    return json.loads(connection.getresponse().read())["result"]


def _begin(connection: http.client.HTTPConnection) -> dict[str, Any]:
    message = {"messageId": "v", "role": "ROLE_USER", "parts": [{"text": "wait"}]}
    params = {"message": message, "configuration": {"returnImmediately": True}}
    task = _call(connection, "SendMessage", params)["task"]
    while not task["artifacts"]:
        task = _call(connection, "GetTask", {"id": task["id"]})
    assert isinstance(task, dict)
    return task


def _differences(connection: http.client.HTTPConnection, before: dict[str, Any]) -> list[str]:
    """What the attacks have done to the victim's task, and stop it."""
    found = []
    after = _call(connection, "GetTask", {"id": before["id"]})
    if after != before:
        found.append(f"the task of the other user was {before}, and is {after}")
    configs = _call(connection, "ListTaskPushNotificationConfigs", {"taskId": before["id"]})["configs"]
    if configs:
        found.append(f"the task of the other user has the configs {configs}")
    _call(connection, "CancelTask", {"id": before["id"]})
    return found


def _fault_of_call(body: bytes, victim: str) -> str | None:
    if b'"reason":"INTERNAL"' in body:
        return f"answered with an internal error: {body[:500]!r}"
    for line in body.split(b"\n"):
        text = line.removeprefix(b"data: ")
        if text.startswith(b"{"):
            result = json.loads(text).get("result")
            if isinstance(result, dict) and result.get("id") == victim:
                return f"shows the task of the other user: {body[:500]!r}"
    return None
