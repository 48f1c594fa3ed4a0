"""The JSON-RPC binding, of both versions: one route for all methods."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from quart import Response

from .call import Call
from .faults import A2AError, kinds
from .http import frames, read_json_body, respond, version_of
from .params import read_params
from .versions import Version

__all__ = ["METHODS", "JsonRpcCall"]

OLD_METHODS: Mapping[str, str] = {
    "message/send": "SendMessage",
    "message/stream": "SendStreamingMessage",
    "tasks/get": "GetTask",
    "tasks/cancel": "CancelTask",
    "tasks/resubscribe": "SubscribeToTask",
    "tasks/pushNotificationConfig/set": "CreateTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/get": "GetTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/list": "ListTaskPushNotificationConfigs",
    "tasks/pushNotificationConfig/delete": "DeleteTaskPushNotificationConfig",
    "agent/getAuthenticatedExtendedCard": "GetExtendedAgentCard",
}
"""The methods of 0.3, by their names in 1.0."""

METHODS = (*OLD_METHODS.values(), "ListTasks")
STREAMING = ("SendStreamingMessage", "SubscribeToTask")


class JsonRpcCall(Call):
    """A call by `POST /a2a`."""

    _id: str | int | float | None = None
    _streams_errors = False

    async def answer(self) -> Response:
        caller = await self.adapter.caller(self.request)
        body, value = await read_json_body(self.request)
        method, params = self._envelope(value)
        version = version_of(self.request, self.adapter.config.protocol_versions)
        self.method = _named(version, method)
        # Clients of 0.3 expect a stream, even if it has an error only.
        self._streams_errors = version.legacy and self.method in STREAMING
        read = read_params(version, self.method, params)
        asked = self.asked(caller, version, body)
        self.task_id = read.get("taskId") or read.get("id") or read.get("message", {}).get("taskId")
        return await self.perform(asked, read)

    def _envelope(self, value: object) -> tuple[str, object]:
        """Return the method and its parameters. Raises A2AError: this is no request of JSON-RPC 2.0."""
        if not isinstance(value, dict):
            what = "batches are not supported" if isinstance(value, list) else "must be an object"
            raise A2AError(kinds.REQUEST, f"{kinds.REQUEST.text}: {what}", violations=[("", what)])
        request_id = value.get("id")
        if isinstance(request_id, bool) or not isinstance(request_id, str | int | float | None):
            raise _malformed("id", "must be a string, a number or null")
        self._id, self.request_id = request_id, orjson.dumps(request_id)
        if value.get("jsonrpc") != "2.0":
            raise _malformed("jsonrpc", 'must be "2.0"')
        method = value.get("method")
        if not isinstance(method, str) or not method:
            raise _malformed("method", "must be the name of a method")
        params = value.get("params")
        return method, {} if params is None else params

    def result(self, value: object) -> Response:
        return respond({"jsonrpc": "2.0", "id": self._id, "result": value})

    def refusal(self, error: A2AError) -> Response:
        body = {"jsonrpc": "2.0", "id": self._id, "error": error.jsonrpc()}
        if self._streams_errors and error.transport == 200:
            return frames(b"data: " + orjson.dumps(body) + b"\n\n")
        return self.refused(error, body, error.transport)


def _named(version: Version, method: str) -> str:
    """Return the name of a method in 1.0. Raises A2AError: the version has no such method."""
    name = OLD_METHODS.get(method) if version.legacy else method if method in METHODS else None
    if name is not None:
        return name
    hint = ""
    if version.legacy and method in METHODS:
        hint = "; it is one of 1.0, which the header A2A-Version: 1.0 selects"
    elif not version.legacy and method in OLD_METHODS:
        hint = f"; in 1.0 it is {OLD_METHODS[method]}"
    shown = "".join(each if each.isprintable() else "?" for each in method[:80])
    raise A2AError(
        kinds.METHOD, f"Method not found: A2A {version.name} has no method {shown!r}{hint}", {"method": shown}
    )


def _malformed(field: str, text: str) -> A2AError:
    return A2AError(kinds.REQUEST, f"{kinds.REQUEST.text}: {field} {text}", violations=[(field, text)])
