"""The parameters of methods: reads and checks them, and gives those of 0.3 the form of 1.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...protocol.structure import Faults
from .shapes import Shape, read
from .versions import Version

__all__ = ["PARAMS", "read_params"]

MAX_PAGE = 100
"""Tasks on a page: specification 1.0, ListTasksRequest."""

STATES = (
    *("SUBMITTED", "WORKING", "COMPLETED", "FAILED", "CANCELED"),
    *("INPUT_REQUIRED", "REJECTED", "AUTH_REQUIRED"),
)

_PART = Shape(
    {
        "text": "text",
        "raw": "base64",
        "url": "text",
        "data": "any",
        "metadata": "object",
        "filename": "text",
        "mediaType": "text",
    }
)
_FILE = Shape({"uri": "text", "bytes": "base64", "mimeType": "text", "name": "text"})
_OLD_PART = Shape({"kind": "text", "text": "text", "file": _FILE, "data": "object", "metadata": "object"})


def _message(part: Shape) -> Shape:
    return Shape(
        {
            "messageId!": "id",
            "contextId": "id",
            "taskId": "text",
            "role!": "any",
            "parts!": [part],
            "metadata": "object",
            "extensions": ["text"],
            "referenceTaskIds": ["text"],
        }
    )


_CONFIG = Shape(
    {
        "id": "id",
        "taskId": "text",
        "url!": "text",
        "token": "text",
        "authentication": Shape({"scheme!": "text", "credentials": "text"}),
    }
)
_OLD_CONFIG = Shape(
    {
        "id": "id",
        "url!": "text",
        "token": "text",
        "authentication": Shape({"schemes!": ["text"], "credentials": "text"}),
    }
)
_TASK = Shape({"id!": "text", "historyLength": "count", "metadata": "object"})

PARAMS: Mapping[str, Shape] = {
    "SendMessage": Shape(
        {
            "message!": _message(_PART),
            "configuration": Shape(
                {
                    "acceptedOutputModes": ["text"],
                    "taskPushNotificationConfig": _CONFIG,
                    "historyLength": "count",
                    "returnImmediately": "flag",
                }
            ),
            "metadata": "object",
        }
    ),
    "GetTask": _TASK,
    "CancelTask": _TASK,
    "SubscribeToTask": _TASK,
    "ListTasks": Shape(
        {
            "contextId": "text",
            "status": "any",
            "pageSize": "number",
            "pageToken": "text",
            "historyLength": "count",
            "statusTimestampAfter": "time",
            "includeArtifacts": "flag",
        }
    ),
    "CreateTaskPushNotificationConfig": Shape(
        {
            **{name: kind for name, kind in _CONFIG.items() if name not in ("taskId", "url")},
            "taskId!": "text",
            "url!": "text",
        }
    ),
    "GetTaskPushNotificationConfig": Shape({"taskId!": "text", "id!": "text"}),
    "ListTaskPushNotificationConfigs": Shape({"taskId!": "text", "pageSize": "number", "pageToken": "text"}),
    "DeleteTaskPushNotificationConfig": Shape({"taskId!": "text", "id!": "text"}),
    "GetExtendedAgentCard": Shape({}),
}
"""By the names of 1.0. A method without an entry has the shape of the method that it streams."""

_OLD_PARAMS: Mapping[str, Shape] = {
    "SendMessage": Shape(
        {
            "message!": _message(_OLD_PART),
            "configuration": Shape(
                {
                    "acceptedOutputModes": ["text"],
                    "pushNotificationConfig": _OLD_CONFIG,
                    "historyLength": "count",
                    "blocking": "flag",
                }
            ),
            "metadata": "object",
        }
    ),
    **{name: PARAMS[name] for name in ("GetTask", "CancelTask", "SubscribeToTask", "GetExtendedAgentCard")},
    "CreateTaskPushNotificationConfig": Shape({"taskId!": "text", "pushNotificationConfig!": _OLD_CONFIG}),
    "GetTaskPushNotificationConfig": Shape({"id!": "text", "pushNotificationConfigId": "text"}),
    "ListTaskPushNotificationConfigs": Shape({"id!": "text"}),
    "DeleteTaskPushNotificationConfig": Shape({"id!": "text", "pushNotificationConfigId!": "text"}),
}


def read_params(version: Version, method: str, value: Any) -> dict[str, Any]:
    """Return the parameters of a method in the form of 1.0. `method` is its name in 1.0.

    Raises ValidationError with each fault.
    """
    faults = Faults()
    shape = (_OLD_PARAMS if version.legacy else PARAMS)["SendMessage" if "Message" in method else method]
    found = read(shape, value, "", faults)
    if "message" in found:
        _check_message(found["message"], faults, legacy=version.legacy)
    if method == "ListTasks":
        _check_page(found, faults)
    faults.settle()
    return _renewed(method, found) if version.legacy else found


def _check_message(message: dict[str, Any], faults: Faults, *, legacy: bool) -> None:
    roles: Mapping[object, str] = _OLD_ROLES if legacy else _ROLES
    if "role" in message:
        role = message["role"]
        message["role"] = roles.get(role) if isinstance(role, str | int) and not isinstance(role, bool) else None
        if message["role"] is None:
            known = [each for each in roles if isinstance(each, str)]
            faults.add("message.role", f"must be one of {', '.join(known)}")
    parts = message.get("parts")
    if not isinstance(parts, list):
        return
    if not parts:
        faults.add("message.parts", "must have at least one part")
    for place, part in enumerate(parts):
        path = f"message.parts[{place}]"
        if legacy:
            parts[place] = part = _renewed_part(part, path, faults)
        one = [name for name in ("text", "raw", "url", "data") if name in part]
        if len(one) != 1:
            faults.add(path, "must have exactly one of text, raw, url and data")


_OLD_ROLES: Mapping[object, str] = {"user": "ROLE_USER", "agent": "ROLE_AGENT"}
_ROLES: Mapping[object, str] = {
    "ROLE_USER": "ROLE_USER",
    "ROLE_AGENT": "ROLE_AGENT",
    1: "ROLE_USER",
    2: "ROLE_AGENT",
}


def _renewed_part(part: dict[str, Any], path: str, faults: Faults) -> dict[str, Any]:
    """A part of 0.3 in the form of 1.0."""
    # SDKs of 0.3 take parts without a kind, too.
    kind = part.get("kind") or next((name for name in ("text", "file", "data") if name in part), None)
    if kind not in ("text", "file", "data"):
        faults.add(f"{path}.kind", "must be one of text, file, data")
        return {"text": ""}
    if kind not in part:
        faults.add(f"{path}.{kind}", "is required")
        return {"text": ""}
    kept = {"metadata": dict(part["metadata"])} if isinstance(part.get("metadata"), Mapping) else {}
    if kind == "text":
        return {"text": part["text"], **kept}
    if kind == "data":
        data = part["data"]
        if kept.get("metadata", {}).pop("data_part_compat", False) and isinstance(data, Mapping):
            data = data.get("value")
        return {"data": data, **kept}
    file = part["file"]
    for old, name in (("uri", "url"), ("bytes", "raw"), ("mimeType", "mediaType"), ("name", "filename")):
        if old in file:
            kept[name] = file[old]
    if not ("url" in kept) ^ ("raw" in kept):
        faults.add(f"{path}.file", "must have one of uri and bytes")
        return {"text": ""}
    return kept


def _check_page(found: dict[str, Any], faults: Faults) -> None:
    size = found.get("pageSize")
    if isinstance(size, int) and not 1 <= size <= MAX_PAGE:
        faults.add("pageSize", f"must be from 1 to {MAX_PAGE}")
    status = found.get("status")
    if isinstance(status, str) and status.removeprefix("TASK_STATE_") in STATES:
        found["status"] = "TASK_STATE_" + status.removeprefix("TASK_STATE_")
    elif status in ("TASK_STATE_UNSPECIFIED", ""):
        del found["status"]
    elif status is not None:
        faults.add("status", f"must be one of {', '.join('TASK_STATE_' + each for each in STATES)}")


def _renewed(method: str, found: dict[str, Any]) -> dict[str, Any]:
    """The parameters of 0.3 in the form of 1.0."""
    match method:
        case "SendMessage" | "SendStreamingMessage":
            configuration = found.get("configuration", {})
            if "pushNotificationConfig" in configuration:
                config = _renewed_config(configuration.pop("pushNotificationConfig"))
                configuration["taskPushNotificationConfig"] = config
            configuration["returnImmediately"] = not configuration.pop("blocking", True)
            found["configuration"] = configuration
        case "CreateTaskPushNotificationConfig":
            return {"taskId": found["taskId"], **_renewed_config(found["pushNotificationConfig"])}
        case "GetTaskPushNotificationConfig" | "DeleteTaskPushNotificationConfig":
            # In 0.3 a config without an id has the id of its task.
            return {"taskId": found["id"], "id": found.get("pushNotificationConfigId") or found["id"]}
        case "ListTaskPushNotificationConfigs":
            return {"taskId": found["id"]}
    return found


def _renewed_config(config: dict[str, Any]) -> dict[str, Any]:
    how = config.get("authentication")
    if how is None:
        return config
    schemes = how["schemes"] or ["Bearer"]
    kept = {"credentials": how["credentials"]} if "credentials" in how else {}
    return {**config, "authentication": {"scheme": schemes[0], **kept}}
