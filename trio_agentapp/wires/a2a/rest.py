"""The HTTP+JSON binding of A2A 1.0: specification 1.0, section 11, and the annotations of its Protocol Buffers."""

from __future__ import annotations

from typing import Any

from quart import Response
from quart.wrappers import Request

from .call import Call
from .faults import A2AError, kinds
from .http import read_json_body, respond, version_of
from .params import read_params
from .shapes import snake_of
from .versions import MODERN

__all__ = ["ROUTES", "RestCall"]

MEDIA_TYPE = "application/a2a+json"

_CONFIGS = "/tasks/<task_id>/pushNotificationConfigs"

ROUTES = (
    ("POST", "/message:send", "SendMessage"),
    ("POST", "/message:stream", "SendStreamingMessage"),
    ("GET", "/tasks", "ListTasks"),
    ("GET", "/tasks/<task_id>", "GetTask"),
    ("POST", "/tasks/<task_id>:cancel", "CancelTask"),
    # Section 5.3 of the specification has POST here, and the Protocol Buffers have GET.
    ("GET", "/tasks/<task_id>:subscribe", "SubscribeToTask"),
    ("POST", "/tasks/<task_id>:subscribe", "SubscribeToTask"),
    ("POST", _CONFIGS, "CreateTaskPushNotificationConfig"),
    ("GET", _CONFIGS, "ListTaskPushNotificationConfigs"),
    ("GET", f"{_CONFIGS}/<config_id>", "GetTaskPushNotificationConfig"),
    ("DELETE", f"{_CONFIGS}/<config_id>", "DeleteTaskPushNotificationConfig"),
    ("GET", "/extendedAgentCard", "GetExtendedAgentCard"),
)
"""The HTTP method, the path, and the method of A2A."""


class RestCall(Call):
    """A call of a method by its route."""

    async def answer(self) -> Response:
        request, method = self.request, self.method
        self.task_id = self.path.get("task_id")
        caller = await self.adapter.caller(request)
        if request.method == "POST" and not ("task_id" in self.path and await _is_empty(request)):
            body, value = await read_json_body(request)
            if not isinstance(value, dict):
                raise A2AError(kinds.REQUEST, f"{kinds.REQUEST.text}: the body must be an object")
            given: dict[str, Any] = value
        else:
            body, given = b"", _query(request)
        version = version_of(request, self.adapter.config.protocol_versions)
        if version.legacy:
            raise A2AError(
                kinds.VERSION,
                "This binding is of A2A 1.0; send the header A2A-Version: 1.0.",
                {"supportedVersions": MODERN.name},
            )
        for name, value in self.path.items():
            field = "taskId" if name == "task_id" and "PushNotification" in method else "id"
            # The path wins over the body, as in the mapping of google.api.http.
            given.pop(snake_of(field), None)
            given[field] = value
        read = read_params(version, method, given)
        return await self.perform(self.asked(caller, version, body), read)

    def result(self, value: object) -> Response:
        return respond(value, media_type=MEDIA_TYPE)

    def refusal(self, error: A2AError) -> Response:
        return self.refused(error, error.http(), error.kind.http)


NUMBERS = ("pageSize", "page_size", "historyLength", "history_length")
FLAGS = ("includeArtifacts", "include_artifacts")


def _query(request: Request) -> dict[str, Any]:
    """The parameters in the query, with the types that they have in JSON."""
    found: dict[str, Any] = {}
    for name, text in request.args.items():
        if name in NUMBERS:
            digits = text.removeprefix("-")
            found[name] = int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 12 else text
        elif name in FLAGS:
            found[name] = {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
        else:
            found[name] = text
    return found


async def _is_empty(request: Request) -> bool:
    """Whether there is no body: clients send none to the routes of a task."""
    return not (await request.get_data(True, False, False)).strip()
