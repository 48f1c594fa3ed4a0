"""The JSON-RPC binding, of both versions: one route for all methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from quart import Response
from quart.wrappers import Request

from .asked import Asked
from .faults import A2AError, kinds
from .guard import guarded
from .http import extension_headers, frames, read_json_body, respond, version_of
from .params import read_params
from .versions import Version, legacy_config

if TYPE_CHECKING:
    # A circle by nature: the adapter makes its bindings, and they answer with what it has.
    from .adapter import A2AAdapter

__all__ = ["METHODS", "JsonRpc"]

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


class JsonRpc:
    """Answers `POST /a2a`."""

    def __init__(self, adapter: A2AAdapter) -> None:
        self._adapter = adapter

    async def call(self, request: Request) -> Response:
        call = _Call(self._adapter, request)
        return await guarded(call.answer, call.refuse)


class _Call:
    """One request, from its body to its response."""

    def __init__(self, adapter: A2AAdapter, request: Request) -> None:
        self._adapter = adapter
        self._request = request
        self._id: str | int | float | None = None
        self._streams_errors = False

    async def answer(self) -> Response:
        adapter = self._adapter
        caller = await adapter.caller(self._request)
        body, value = await read_json_body(self._request)
        method, params = self._envelope(value)
        version = version_of(self._request, adapter.config.protocol_versions)
        name = _named(version, method)
        # Clients of 0.3 expect a stream, even if it has an error only.
        self._streams_errors = version.legacy and name in STREAMING
        read = read_params(version, name, params)
        asked = await adapter.asked(
            self._request,
            caller=caller,
            version=version,
            sends=name in ("SendMessage", "SendStreamingMessage"),
            body=body,
        )
        task_id = read.get("taskId") or read.get("id") or read.get("message", {}).get("taskId")
        return await guarded(partial(self._perform, name, asked, read), self.refuse, task_id=task_id)

    def _envelope(self, value: object) -> tuple[str, object]:
        """Return the method and its parameters. Raises A2AError: this is no request of JSON-RPC 2.0."""
        if not isinstance(value, dict):
            what = "batches are not supported" if isinstance(value, list) else "must be an object"
            raise A2AError(kinds.REQUEST, f"{kinds.REQUEST.text}: {what}", violations=[("", what)])
        request_id = value.get("id")
        if isinstance(request_id, bool) or not isinstance(request_id, str | int | float | None):
            raise _malformed("id", "must be a string, a number or null")
        self._id = request_id
        if value.get("jsonrpc") != "2.0":
            raise _malformed("jsonrpc", 'must be "2.0"')
        method = value.get("method")
        if not isinstance(method, str) or not method:
            raise _malformed("method", "must be the name of a method")
        params = value.get("params")
        return method, {} if params is None else params

    async def _perform(self, name: str, asked: Asked, params: Mapping[str, Any]) -> Response:
        adapter, request = self._adapter, self._request
        if name == "SendStreamingMessage":
            return await adapter.stream_sent(request, asked, params, orjson.dumps(self._id))
        if name == "SubscribeToTask":
            task, watched = await adapter.operations.subscribe(asked, params)
            return adapter.stream_task(request, asked, task, watched, orjson.dumps(self._id))
        perform: Callable[[], Awaitable[object]] = partial(getattr(self, _METHODS[name]), asked, params)
        result = await perform()
        response = respond({"jsonrpc": "2.0", "id": self._id, "result": result})
        response.headers.update(extension_headers(asked.extensions))
        return response

    async def _send(self, asked: Asked, params: Mapping[str, Any]) -> object:
        return asked.version.sent(*await self._adapter.operations.send(asked, params))

    async def _get(self, asked: Asked, params: Mapping[str, Any]) -> object:
        return asked.version.task(await self._adapter.operations.get(asked, params))

    async def _list(self, asked: Asked, params: Mapping[str, Any]) -> object:
        return await self._adapter.operations.listing.page(asked, params)

    async def _cancel(self, asked: Asked, params: Mapping[str, Any]) -> object:
        return asked.version.task(await self._adapter.operations.cancel(asked, params))

    async def _add_config(self, asked: Asked, params: Mapping[str, Any]) -> object:
        return _config(asked.version, await self._adapter.operations.notifications.add(asked, params))

    async def _get_config(self, asked: Asked, params: Mapping[str, Any]) -> object:
        return _config(asked.version, await self._adapter.operations.notifications.get(asked, params))

    async def _list_configs(self, asked: Asked, params: Mapping[str, Any]) -> object:
        configs = await self._adapter.operations.notifications.list(asked, params)
        if asked.version.legacy:
            return [_config(asked.version, each) for each in configs]
        return {"configs": list(configs), "nextPageToken": ""}

    async def _delete_config(self, asked: Asked, params: Mapping[str, Any]) -> object:
        await self._adapter.operations.notifications.delete(asked, params)
        return None if asked.version.legacy else {}

    async def _extended_card(self, asked: Asked, _params: Mapping[str, Any]) -> object:
        return await self._adapter.extended_card(self._request, asked)

    def refuse(self, error: A2AError) -> Response:
        body = {"jsonrpc": "2.0", "id": self._id, "error": error.jsonrpc()}
        if self._streams_errors and error.transport == 200:
            return frames(b"data: " + orjson.dumps(body) + b"\n\n")
        response = respond(body, error.transport)
        response.headers.update(error.headers)
        if error.transport == 401:
            response.headers["WWW-Authenticate"] = self._adapter.challenge()
        return response


_METHODS = {
    "SendMessage": "_send",
    "GetTask": "_get",
    "ListTasks": "_list",
    "CancelTask": "_cancel",
    "CreateTaskPushNotificationConfig": "_add_config",
    "GetTaskPushNotificationConfig": "_get_config",
    "ListTaskPushNotificationConfigs": "_list_configs",
    "DeleteTaskPushNotificationConfig": "_delete_config",
    "GetExtendedAgentCard": "_extended_card",
}


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


def _config(version: Version, config: Mapping[str, Any]) -> Mapping[str, Any]:
    return legacy_config(config) if version.legacy else config
