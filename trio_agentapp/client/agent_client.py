"""`AgentClient`: runs of an agent that is served elsewhere, from a Trio program."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import httpx
import trio

from ..errors import ConfigurationError
from ..nursery import nursery_around
from ..protocol.lifecycle import StopReceipt
from ..protocol.message import Message
from ..protocol.request import AgentRequest, OnDisconnect
from .event_stream import EventStream
from .http_api import HttpAPI, new_http_client, query, segment
from .nodes import Nodes
from .request_body import answer_message, body_of
from .responses import receipt_of
from .retries import Retries
from .run_opener import RunOpener
from .sse_transport import SSETransport
from .transport import Transport
from .websocket_connector import WebSocketConnector
from .websocket_transport import WebSocketTransport

__all__ = ["AgentClient"]

SILENCE = 45.0
"""Seconds without a byte after which a stream counts as failed: three of the server's keep-alives."""

LEAVE_TIMEOUT = 5.0
"""Seconds to report to the server that a reader leaves."""


class AgentClient:
    """A client of one agent, with one base URL or those of several nodes.

        async with AgentClient("http://127.0.0.1:8090") as client:
            async with client.run("Hello") as events:
                async for event in events: ...

    Args:
        base_url: the URL of the agent; several are nodes of one app, and the next is tried if one fails.
        token: sent as `Authorization: Bearer`.
        headers: sent with every request.
        transport: "sse": a connection for each run; "websocket": one for all.
        endpoint_path, websocket_path: the paths on the server.
        on_disconnect: the policy of requests that have none. Without it the app's default applies, which may stop a
            run whose connection has failed before the client can continue to read it.
        retries: how often and how long to try again when connections fail.
        connect_timeout: seconds.
        silence: seconds without a byte after which a stream counts as failed; at least two keep-alives (30 s).
        ssl_context: the TLS context for `https`; None: that of the system.

    All methods raise only errors of `trio_agentapp.errors`: the RequestError with the code of a refusal, and
    ConnectionLost if no server can be reached.
    """

    def __init__(
        self,
        base_url: str | Sequence[str],
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: Literal["sse", "websocket"] = "sse",
        endpoint_path: str = "/process",
        websocket_path: str = "/ws",
        on_disconnect: OnDisconnect | None = None,
        retries: Retries | None = None,
        connect_timeout: float = 5.0,
        silence: float = SILENCE,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if transport not in ("sse", "websocket"):
            raise ConfigurationError(f"transport must be 'sse' or 'websocket', not {transport!r}")
        self._nodes = Nodes(base_url)
        self._headers = dict(headers or {})
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._kind = transport
        self._endpoint_path = endpoint_path
        self._websocket_path = websocket_path
        self._on_disconnect = on_disconnect
        self._retries = retries or Retries()
        self._connect_timeout = connect_timeout
        self._silence = silence
        self._ssl_context = ssl_context
        self._opening: AbstractAsyncContextManager[tuple[HttpAPI, RunOpener]]
        self._open: tuple[HttpAPI, RunOpener] | None = None

    async def __aenter__(self) -> AgentClient:
        """
        Raises:
            ConfigurationError: the program does not run on Trio, but for instance on asyncio.
        """
        if not trio.lowlevel.in_trio_run():
            raise ConfigurationError(
                "AgentClient needs Trio, and this program does not run on it: start it with trio.run(main). From "
                "asyncio, use the HTTP API, such as httpx.AsyncClient().stream('POST', url + '/process', json=...)"
            )
        self._opening = self._opened()
        self._open = await self._opening.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        self._open = None
        return await self._opening.__aexit__(*error)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[HttpAPI, RunOpener]]:
        http = new_http_client(
            self._nodes,
            self._headers,
            connect_timeout=self._connect_timeout,
            silence=self._silence,
            ssl_context=self._ssl_context,
        )
        async with http, nursery_around() as nursery:
            transport = self._new_transport(http, nursery)
            try:
                yield HttpAPI(self._nodes, http, self._retries), RunOpener(self._nodes, transport, self._retries)
                await transport.aclose()
            finally:
                nursery.cancel_scope.cancel(reason="the client is closed")

    def _new_transport(self, http: httpx.AsyncClient, nursery: trio.Nursery) -> Transport:
        if self._kind == "sse":
            return SSETransport(self._nodes, http, nursery, path=self._endpoint_path)
        connector = WebSocketConnector(
            self._nodes,
            path=self._websocket_path,
            headers=self._headers,
            connect_timeout=self._connect_timeout,
            silence=self._silence,
            ssl_context=self._ssl_context,
        )
        return WebSocketTransport(connector, nursery)

    @property
    def _api(self) -> HttpAPI:
        return self._parts[0]

    @property
    def _opener(self) -> RunOpener:
        return self._parts[1]

    @property
    def _parts(self) -> tuple[HttpAPI, RunOpener]:
        if self._open is None:
            raise RuntimeError("the client is not open: use `async with AgentClient(...) as client:`")
        return self._open

    # Runs as streams.

    @asynccontextmanager
    async def run(
        self,
        request: AgentRequest | Mapping[str, Any] | str,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> AsyncIterator[EventStream]:
        """Start a run, and follow it inside the block.

        A request is the user's text, a dict as in `POST /process`, or an AgentRequest; `session_id` and `user_id`
        take precedence over its own. Leaving the block early is a disconnect; `events.stop()` is a stop.

        Raises:
            RequestError: refused; the class says why, such as SessionBusy or ValidationError. Nothing was started.
            ConnectionLost: no server could be reached.
        """
        body = body_of(request, session_id, user_id, self._on_disconnect)
        subscription = await self._opener.start(body, own_id=not _has_id(request))
        stream = EventStream(self._api, self._opener, subscription, after=-1, user_id=body.get("user_id"))
        async with self._followed(stream) as events:
            yield events

    @asynccontextmanager
    async def attach(
        self, run_id: str, starting_after: int = -1, *, user_id: str | None = None
    ) -> AsyncIterator[EventStream]:
        """Follow a run that exists, from the event after `starting_after`; one that has ended is replayed.

        Raises:
            RunNotFound: the run does not exist, or belongs to another user. RequestError: refused.
            ConnectionLost: no server could be reached.
        """
        subscription = await self._opener.attach(run_id, starting_after, user_id)
        stream = EventStream(self._api, self._opener, subscription, after=starting_after, user_id=user_id)
        async with self._followed(stream) as events:
            yield events

    @asynccontextmanager
    async def _followed(self, stream: EventStream) -> AsyncIterator[EventStream]:
        try:
            yield stream
        finally:
            with trio.move_on_after(LEAVE_TIMEOUT, shield=True):
                await stream.aclose()

    # Single requests.

    async def stop(
        self,
        session_id: str | None = None,
        user_id: str | None = None,
        *,
        run_id: str | None = None,
        wait: bool = False,
    ) -> StopReceipt:
        """Stop the running run of a session, or a named run; with `wait`, return when nothing of it runs any more.

        If the answer is lost, only a stop by run id is sent again. The session may have another run by then.
        """
        return await self._api.stop(session_id, user_id, run_id, wait=wait)

    async def status(self, run_id: str, *, user_id: str | None = None) -> dict[str, Any]:
        """Return one run, as `GET /runs/{run_id}` does."""
        return await self._api.ask("GET", f"/runs/{segment(run_id)}", params=query(user_id=user_id))

    async def runs(
        self,
        *,
        status: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """Return a page of runs, the youngest first, as `GET /runs` does: `runs`, and a `cursor` for the next."""
        params = query(status=status, session_id=session_id, limit=limit, cursor=cursor, user_id=user_id)
        return await self._api.ask("GET", "/runs", params=params)

    async def wait(self, run_id: str, *, user_id: str | None = None) -> dict[str, Any]:
        """Wait for the end of a run, and return its terminal response. `trio.fail_after` bounds the time."""
        return await self._api.ask(
            "GET", f"/runs/{segment(run_id)}/wait", params=query(user_id=user_id), waits=True
        )

    async def cancel(self, run_id: str, *, user_id: str | None = None, wait: bool = False) -> StopReceipt:
        """Stop a run by its id alone; with `wait`, return when nothing of it runs any more.

        Raises:
            RunNotFound: no run has this id, or it is another user's. A run that gets the id later will not start.
        """
        params = query(user_id=user_id, wait=1 if wait else None)
        return receipt_of(await self._api.ask("POST", f"/runs/{segment(run_id)}/cancel", params=params, waits=wait))

    async def cancel_several(
        self, run_ids: Iterable[str] = (), *, status: str | None = None, user_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Request a stop of the named runs, or of all with a status. Return one result for each without waiting."""
        body: dict[str, Any] = {"run_ids": list(run_ids)} if status is None else {"status": status}
        answer = await self._api.ask("POST", "/runs/cancel", params=query(user_id=user_id), body=body)
        results: list[dict[str, Any]] = answer["results"]
        return results

    async def send_input(
        self, run_id: str, message: Message | Mapping[str, Any] | str, *, user_id: str | None = None
    ) -> None:
        """Send a message to a running run, which gets it from `run.receive()`.

        If the answer is lost (ConnectionLost), the message is not sent again, as the run could get it twice.
        """
        await self._api.send_input(run_id, message, user_id=user_id)

    async def questions(
        self,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """Return the open questions of a user's runs, as `GET /questions` does: `questions`, and a `cursor`."""
        params = query(session_id=session_id, limit=limit, cursor=cursor, user_id=user_id)
        return await self._api.ask("GET", "/questions", params=params)

    async def answer(self, run_id: str, question_id: str, value: Any, *, user_id: str | None = None) -> None:
        """Answer a question of a run: True or False for an approval, else a text or a JSON value.

        Raises:
            ValidationError: the question is not open. RunEnded: the run has ended.
        """
        await self.send_input(run_id, answer_message(question_id, value), user_id=user_id)

    async def session(self, session_id: str, *, user_id: str | None = None) -> dict[str, Any]:
        """Return a session, as `GET /sessions/{session_id}` does."""
        return await self._api.ask("GET", f"/sessions/{segment(session_id)}", params=query(user_id=user_id))

    async def health(self) -> dict[str, Any]:
        """Return the answer of `GET /health`."""
        return await self._api.ask("GET", "/health")


def _has_id(request: AgentRequest | Mapping[str, Any] | str) -> bool:
    if isinstance(request, AgentRequest):
        return request.id is not None
    return not isinstance(request, str) and request.get("id") is not None
