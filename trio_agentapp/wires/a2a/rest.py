"""The HTTP+JSON binding of A2A 1.0: specification 1.0, section 11, and the annotations of its Protocol Buffers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from quart import Response
from quart.wrappers import Request

from ...web.protocol_adapter import WireRoute
from .asked import Asked
from .faults import A2AError, kinds
from .guard import guarded
from .http import extension_headers, read_json_body, respond, version_of
from .params import read_params
from .shapes import snake_of
from .versions import MODERN

if TYPE_CHECKING:
    # A circle by nature: the adapter makes its bindings, and they answer with what it has.
    from .adapter import A2AAdapter

__all__ = ["Rest"]

MEDIA_TYPE = "application/a2a+json"

Perform = Callable[[Request, Asked, Mapping[str, Any]], Awaitable[Response]]


class Rest:
    """The routes of the binding."""

    def __init__(self, adapter: A2AAdapter) -> None:
        self._adapter = adapter

    def routes(self) -> Sequence[WireRoute]:
        configs = "/tasks/<task_id>/pushNotificationConfigs"
        return [
            ("POST", "/message:send", self._view("SendMessage", self._send)),
            ("POST", "/message:stream", self._view("SendStreamingMessage", self._stream)),
            ("GET", "/tasks", self._view("ListTasks", self._list)),
            ("GET", "/tasks/<task_id>", self._view("GetTask", self._get)),
            ("POST", "/tasks/<task_id>:cancel", self._view("CancelTask", self._cancel)),
            # Section 5.3 of the specification has POST here, and the Protocol Buffers have GET.
            ("GET", "/tasks/<task_id>:subscribe", self._view("SubscribeToTask", self._subscribe)),
            ("POST", "/tasks/<task_id>:subscribe", self._view("SubscribeToTask", self._subscribe)),
            ("POST", configs, self._view("CreateTaskPushNotificationConfig", self._add_config)),
            ("GET", configs, self._view("ListTaskPushNotificationConfigs", self._list_configs)),
            ("GET", f"{configs}/<config_id>", self._view("GetTaskPushNotificationConfig", self._get_config)),
            (
                "DELETE",
                f"{configs}/<config_id>",
                self._view("DeleteTaskPushNotificationConfig", self._delete_config),
            ),
            ("GET", "/extendedAgentCard", self._view("GetExtendedAgentCard", self._extended_card)),
        ]

    def _view(self, method: str, perform: Perform) -> Callable[..., Awaitable[Response]]:
        async def view(request: Request, **path: str) -> Response:
            return await guarded(
                partial(self._answer, method, perform, request, path), self._refuse, task_id=path.get("task_id")
            )

        return view

    async def _answer(self, method: str, perform: Perform, request: Request, path: Mapping[str, str]) -> Response:
        adapter = self._adapter
        caller = await adapter.caller(request)
        if request.method == "POST" and not ("task_id" in path and await _is_empty(request)):
            body, value = await read_json_body(request)
            if not isinstance(value, dict):
                raise A2AError(kinds.REQUEST, f"{kinds.REQUEST.text}: the body must be an object")
            given: dict[str, Any] = value
        else:
            body, given = b"", _query(request)
        version = version_of(request, adapter.config.protocol_versions)
        if version.legacy:
            raise A2AError(
                kinds.VERSION,
                "This binding is of A2A 1.0; send the header A2A-Version: 1.0.",
                {"supportedVersions": MODERN.name},
            )
        sends = method in ("SendMessage", "SendStreamingMessage")
        named = {_PATH_FIELDS[method][name]: value for name, value in path.items()}
        for name in named:
            # The path wins over the body, as in the mapping of google.api.http.
            given.pop(snake_of(name), None)
        read = read_params(version, method, {**given, **named})
        asked = await adapter.asked(request, caller=caller, version=version, sends=sends, body=body)
        response = await perform(request, asked, read)
        response.headers.update(extension_headers(asked.extensions))
        return response

    async def _send(self, _request: Request, asked: Asked, params: Mapping[str, Any]) -> Response:
        kind, value = await self._adapter.operations.send(asked, params)
        return _respond({kind: value})

    async def _stream(self, request: Request, asked: Asked, params: Mapping[str, Any]) -> Response:
        return await self._adapter.stream_sent(request, asked, params, None)

    async def _list(self, _request: Request, asked: Asked, params: Mapping[str, Any]) -> Response:
        return _respond(await self._adapter.operations.listing.page(asked, params))

    async def _get(self, _request: Request, asked: Asked, params: Mapping[str, Any]) -> Response:
        return _respond(await self._adapter.operations.get(asked, params))

    async def _cancel(self, _request: Request, asked: Asked, params: Mapping[str, Any]) -> Response:
        return _respond(await self._adapter.operations.cancel(asked, params))

    async def _subscribe(self, request: Request, asked: Asked, params: Mapping[str, Any]) -> Response:
        task, watched = await self._adapter.operations.subscribe(asked, params)
        return self._adapter.stream_task(request, asked, task, watched, None)

    async def _add_config(self, _request: Request, asked: Asked, params: Mapping[str, Any]) -> Response:
        return _respond(await self._adapter.operations.notifications.add(asked, params))

    async def _get_config(self, _request: Request, asked: Asked, params: Mapping[str, Any]) -> Response:
        return _respond(await self._adapter.operations.notifications.get(asked, params))

    async def _list_configs(self, _request: Request, asked: Asked, params: Mapping[str, Any]) -> Response:
        configs = await self._adapter.operations.notifications.list(asked, params)
        return _respond({"configs": list(configs), "nextPageToken": ""})

    async def _delete_config(self, _request: Request, asked: Asked, params: Mapping[str, Any]) -> Response:
        await self._adapter.operations.notifications.delete(asked, params)
        return _respond({})

    async def _extended_card(self, request: Request, asked: Asked, _params: Mapping[str, Any]) -> Response:
        return _respond(await self._adapter.extended_card(request, asked))

    def _refuse(self, error: A2AError) -> Response:
        status = error.kind.http
        response = respond(error.http(), status)
        response.headers.update(error.headers)
        if status == 401:
            response.headers["WWW-Authenticate"] = self._adapter.challenge()
        return response


_PATH_FIELDS: Mapping[str, Mapping[str, str]] = {
    **{method: {"task_id": "id"} for method in ("GetTask", "CancelTask", "SubscribeToTask")},
    **{
        method: {"task_id": "taskId", "config_id": "id"}
        for method in (
            "CreateTaskPushNotificationConfig",
            "ListTaskPushNotificationConfigs",
            "GetTaskPushNotificationConfig",
            "DeleteTaskPushNotificationConfig",
        )
    },
    **{method: {} for method in ("SendMessage", "SendStreamingMessage", "ListTasks", "GetExtendedAgentCard")},
}

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


def _respond(body: object) -> Response:
    return respond(body, media_type=MEDIA_TYPE)
