"""How A2A 1.0 and 0.3 write the same objects. Inside this package they have the form of 1.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

__all__ = ["LEGACY", "MODERN", "VERSIONS", "Version"]


class Version:
    """One version of the protocol: its name, its methods, and how it writes results."""

    def __init__(self, name: str, *, legacy: bool) -> None:
        self.name = name
        self.legacy = legacy

    def task(self, task: dict[str, Any]) -> dict[str, Any]:
        """A task by itself."""
        return legacy_task(task) if self.legacy else task

    def config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """A push notification config."""
        return _legacy_config(config) if self.legacy else config

    def streamed(self, kind: str, value: dict[str, Any], *, final: bool = False) -> dict[str, Any]:
        """One item of a stream: a `task`, `message`, `statusUpdate` or `artifactUpdate`."""
        if not self.legacy:
            return {kind: value}
        match kind:
            case "task":
                return legacy_task(value)
            case "message":
                return legacy_message(value)
            case "artifactUpdate":
                return {**value, "kind": "artifact-update", "artifact": _legacy_artifact(value["artifact"])}
        return {**value, "kind": "status-update", "status": _legacy_status(value["status"]), "final": final}

    def text_frame(self, task_id: str, context_id: str, artifact_id: str) -> tuple[bytes, bytes]:
        """What stands before and after the text in the JSON of a further piece of text of an artifact."""
        mark = "\0text\0"
        part = {"text": mark}
        update = {
            "taskId": task_id,
            "contextId": context_id,
            "artifact": {"artifactId": artifact_id, "parts": [part]},
            "append": True,
            "lastChunk": False,
        }
        head, tail = orjson.dumps(self.streamed("artifactUpdate", update)).split(orjson.dumps(mark))
        return head, tail


def legacy_task(task: Mapping[str, Any]) -> dict[str, Any]:
    found = {**task, "kind": "task", "status": _legacy_status(task["status"])}
    if "artifacts" in task:
        found["artifacts"] = [_legacy_artifact(each) for each in task["artifacts"]]
    if "history" in task:
        found["history"] = [legacy_message(each) for each in task["history"]]
    return found


def legacy_message(message: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **message,
        "kind": "message",
        "role": "user" if message.get("role") == "ROLE_USER" else "agent",
        "parts": [_legacy_part(part) for part in message["parts"]],
    }


def legacy_state(state: str) -> str:
    return state.removeprefix("TASK_STATE_").lower().replace("_", "-")


def _legacy_status(status: Mapping[str, Any]) -> dict[str, Any]:
    found = {**status, "state": legacy_state(status["state"])}
    if "message" in status:
        found["message"] = legacy_message(status["message"])
    return found


def _legacy_artifact(artifact: Mapping[str, Any]) -> dict[str, Any]:
    return {**artifact, "parts": [_legacy_part(part) for part in artifact["parts"]]}


def _legacy_part(part: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"metadata": part["metadata"]} if "metadata" in part else {}
    if "text" in part:
        return {"kind": "text", "text": part["text"], **metadata}
    if "data" in part:
        data = part["data"]
        if not isinstance(data, Mapping):
            # In 0.3 data is an object. The mark is that of the SDKs, which undo it.
            data = {"value": data}
            metadata = {"metadata": {**part.get("metadata", {}), "data_part_compat": True}}
        return {"kind": "data", "data": data, **metadata}
    file = {"bytes": part["raw"]} if "raw" in part else {"uri": part["url"]}
    for name, old in (("mediaType", "mimeType"), ("filename", "name")):
        if name in part:
            file[old] = part[name]
    return {"kind": "file", "file": file, **metadata}


def _legacy_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A push notification config of 1.0 as one of 0.3."""
    inner = {name: config[name] for name in ("id", "url", "token") if name in config}
    if (how := config.get("authentication")) is not None:
        inner["authentication"] = {"schemes": [how["scheme"]]}
        if "credentials" in how:
            inner["authentication"]["credentials"] = how["credentials"]
    return {"taskId": config["taskId"], "pushNotificationConfig": inner}


MODERN = Version("1.0", legacy=False)
LEGACY = Version("0.3", legacy=True)
VERSIONS: Mapping[str, Version] = {"1.0": MODERN, "0.3": LEGACY}
