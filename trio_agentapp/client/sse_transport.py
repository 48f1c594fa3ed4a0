"""Runs over HTTP: Server-Sent Events, by httpx."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import httpx
import trio

from ..errors import UnexpectedAnswer
from .failures import ConnectionFailed, connection_failed
from .http_api import query, segment
from .nodes import Nodes
from .request_body import encoded
from .responses import error_of_response
from .sse_parser import SSEParser
from .subscription import Subscription, is_terminal
from .transport import Transport

__all__ = ["SSETransport"]

END_TIMEOUT = 5.0
"""Seconds from the terminal event to the end of the response, so that its connection can be used again."""


class SSESubscription(Subscription):
    """The events of one streamed response."""

    def __init__(self, node: int, run_id: str, session_id: str | None) -> None:
        super().__init__(node, run_id, session_id)
        self.scope = trio.CancelScope()
        self.closed = trio.Event()

    async def aclose(self) -> None:
        self.scope.cancel(reason="the reader of this run left")
        await self.closed.wait()


class SSETransport(Transport):
    """Opens a connection for each run.

    Args:
        http: the HTTP client. Its read time-out is the silence after which a stream counts as failed.
        nursery: the owner of the tasks that read.
    """

    def __init__(self, nodes: Nodes, http: httpx.AsyncClient, nursery: trio.Nursery, *, path: str) -> None:
        self._nodes = nodes
        self._http = http
        self._nursery = nursery
        self._path = path

    async def start(self, node: int, body: dict[str, Any]) -> Subscription:
        request = self._http.build_request(
            "POST",
            self._nodes.urls[node] + self._path,
            content=encoded({**body, "stream": True}),
            headers={"Content-Type": "application/json", "Accept": "text/event-stream"},
        )
        return await self._subscribed(request, SSESubscription(node, body["id"], body["session_id"]))

    async def attach(self, node: int, run_id: str, after: int, user_id: str | None) -> Subscription:
        headers = {"Accept": "text/event-stream"}
        if after >= 0:
            headers["Last-Event-ID"] = str(after)
        request = self._http.build_request(
            "GET",
            f"{self._nodes.urls[node]}/runs/{segment(run_id)}/stream",
            params=query(user_id=user_id),
            headers=headers,
        )
        return await self._subscribed(request, SSESubscription(node, run_id, None))

    async def _subscribed(self, request: httpx.Request, subscription: SSESubscription) -> Subscription:
        name = f"events of run {subscription.run_id}"
        await self._nursery.start(self._receive, request, subscription, name=name)
        return subscription

    async def _receive(
        self, request: httpx.Request, subscription: SSESubscription, task_status: trio.TaskStatus[None]
    ) -> None:
        """Send the request and read its stream.

        It has started when the server has accepted; raises if it refuses.
        """
        started = False
        failure: ConnectionFailed | None = None
        try:
            with subscription.scope:
                response = await self._http.send(request, stream=True)
                try:
                    await self._check(response, subscription)
                    task_status.started()
                    started = True
                    failure = await self._read(response, subscription)
                finally:
                    with trio.CancelScope(shield=True):
                        await response.aclose()
        except httpx.TransportError as error:
            failure = connection_failed(error)
            if not started:
                raise failure from error
        finally:
            subscription.finish(failure)
            subscription.closed.set()

    async def _check(self, response: httpx.Response, subscription: SSESubscription) -> None:
        if response.status_code == 204:
            return
        if response.status_code != 200:
            await response.aread()
            raise error_of_response(response)
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            raise UnexpectedAnswer(f"{response.url} answered with {kind or 'no type'}, not with an event stream")
        subscription.run_id = response.headers.get("x-run-id", subscription.run_id)
        session = response.headers.get("x-session-id")
        if session is not None and subscription.session_id is None:
            subscription.session_id = unquote(session)

    async def _read(self, response: httpx.Response, subscription: SSESubscription) -> ConnectionFailed | None:
        """Read to the end of the response. Returns a failure if the terminal event did not arrive."""
        if response.status_code == 204:
            return None
        parser = SSEParser()
        ended = False
        with trio.CancelScope() as ending:
            async for chunk in response.aiter_raw():
                try:
                    batch = [] if ended else parser.feed(chunk)
                except UnexpectedAnswer as error:
                    return ConnectionFailed(str(error), sent=True, permanent=True)
                if not batch:
                    continue
                subscription.put(batch, len(chunk))
                last = batch[-1]
                if isinstance(last, dict) and is_terminal(last):
                    ended = True
                    subscription.finish()
                    ending.deadline = trio.current_time() + END_TIMEOUT
                elif subscription.full:
                    await subscription.wait_room()
        return None if ended else ConnectionFailed("the connection was closed before the run ended", sent=True)
