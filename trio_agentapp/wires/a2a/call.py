"""One call of a client, from its request to its response: what both bindings do with it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import trio
from quart import Response
from quart.wrappers import Request
from werkzeug.exceptions import HTTPException

from ...errors import RequestError
from ...web.identity import Caller
from ...web.parameters import idempotency_key
from ...web.sse import hold_watch
from .asked import Asked
from .faults import A2AError, error_of, kinds, needs
from .http import extension_headers, extensions_of, frames, respond
from .operations import Operations
from .stream import TaskStream
from .versions import Version

if TYPE_CHECKING:
    # A circle by nature: the adapter makes the calls, and they answer with what it has.
    from .adapter import A2AAdapter

__all__ = ["Call"]

logger = logging.getLogger("trio_agentapp.wires.a2a")

REPLY_WAIT = 0.2
"""Seconds that a stream waits for the first output before it announces a task: with `a2a_reply` there is none."""

SENDING = ("SendMessage", "SendStreamingMessage")


@attrs.define(eq=False, slots=False)
class Call(ABC):
    """A call of a method."""

    adapter: A2AAdapter
    request: Request
    method: str = ""
    """Its name in A2A 1.0, as soon as it is known."""
    path: Mapping[str, str] = attrs.field(factory=dict)
    """The values in the path of the route."""
    task_id: object = None
    """The task that the request names, as soon as it is known."""
    request_id: bytes | None = None
    """The JSON of the id that JSON-RPC has around each item of a stream; None: there is none."""

    @abstractmethod
    async def answer(self) -> Response:
        """Read the request, and return the response. Raises A2AError, or a RequestError of the runtime."""

    @abstractmethod
    def result(self, value: object) -> Response:
        """Return the response with the result of a method."""

    @abstractmethod
    def refusal(self, error: A2AError) -> Response:
        """Return the response that refuses the request."""

    @property
    def operations(self) -> Operations:
        return self.adapter.operations

    async def response(self) -> Response:
        """Return the answer, or the refusal of the protocol."""
        try:
            return await self.answer()
        except A2AError as error:
            return self.refusal(error)
        except (RequestError, HTTPException) as error:
            task_id = self.task_id[:64] if isinstance(self.task_id, str) else None
            return self.refusal(error_of(error, task_id=task_id))
        except Exception:
            logger.exception("a request failed")
            return self.refusal(A2AError(kinds.INTERNAL, "Something went wrong on this server.", transport=500))

    def refused(self, error: A2AError, body: object, status: int) -> Response:
        """Return a response with a refusal, with its headers."""
        response = respond(body, status)
        response.headers.update(error.headers)
        if status == 401:
            response.headers["WWW-Authenticate"] = self.adapter.challenge()
        return response

    def asked(self, caller: Caller, version: Version, body: bytes) -> Asked:
        """Say who asks, and read the extensions that the client supports."""
        sends = self.method in SENDING
        return Asked(
            caller=caller,
            version=version,
            extensions=extensions_of(self.request, self.operations.card, legacy=version.legacy, demanded=sends),
            idempotency_key=idempotency_key(self.request) if sends else None,
            body=body,
        )

    async def perform(self, asked: Asked, params: Mapping[str, Any]) -> Response:
        """Call the method with parameters that were read."""
        if self.method == "SendStreamingMessage":
            return await self._stream_sent(asked, params)
        if self.method == "SubscribeToTask":
            return await self._stream_task(asked, params)
        response = self.result(await self._result(asked, params))
        response.headers.update(extension_headers(asked.extensions))
        return response

    async def _result(self, asked: Asked, params: Mapping[str, Any]) -> object:
        """Call a method that has one result. Return it in the form of the client's version."""
        operations, version = self.operations, asked.version
        match self.method:
            case "SendMessage":
                return version.streamed(*await operations.send(asked, params))
            case "GetTask":
                return version.task(await operations.get(asked, params))
            case "ListTasks":
                return await operations.listing.page(asked, params)
            case "CancelTask":
                return version.task(await operations.cancel(asked, params))
            case "CreateTaskPushNotificationConfig":
                return version.config(await operations.notifications.add(asked, params))
            case "GetTaskPushNotificationConfig":
                return version.config(await operations.notifications.get(asked, params))
            case "ListTaskPushNotificationConfigs":
                configs = [version.config(each) for each in await operations.notifications.list(asked, params)]
                return configs if version.legacy else {"configs": configs, "nextPageToken": ""}
            case "DeleteTaskPushNotificationConfig":
                await operations.notifications.delete(asked, params)
                return None if version.legacy else {}
        assert self.method == "GetExtendedAgentCard"  # noqa: S101  both bindings know the names
        return self.adapter.extended_card(self.request, asked)

    # Streams.

    async def _stream_sent(self, asked: Asked, params: Mapping[str, Any]) -> Response:
        """Send a message, and stream what becomes of it."""
        needs(self.operations.card, "streaming", kinds.UNSUPPORTED)
        started = await self.operations.begin(asked, params)
        watched = started.watched
        stream = TaskStream(
            started.task,
            asked.version,
            self.request_id,
            history_length=params.get("configuration", {}).get("historyLength"),
            turns=started.turns,
        )
        if watched is None:
            stream.begin_with_task()
            stream.end_with_status()
            return frames(stream.preamble)
        hold_watch(self.request, watched.subscriber)
        if not params["message"].get("taskId"):
            with trio.move_on_after(REPLY_WAIT):
                while not stream.announced:
                    stream.begin(await watched.subscriber.receive())
        stream.begin_with_task()
        return self.adapter.stream(self.request, watched, stream, extension_headers(asked.extensions))

    async def _stream_task(self, asked: Asked, params: Mapping[str, Any]) -> Response:
        """Stream a task from its present state on."""
        task, watched = await self.operations.subscribe(asked, params)
        hold_watch(self.request, watched.subscriber)
        stream = TaskStream(task, asked.version, self.request_id, ends_at_question=False)
        stream.begin_with_task()
        return self.adapter.stream(self.request, watched, stream, extension_headers(asked.extensions))
