"""`AgentClient`: an agent that is served elsewhere, from a Trio program."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote

import httpx
import trio

from ..errors import ConfigurationError, UnexpectedAnswer
from ..protocol.lifecycle import StopReceipt
from ..protocol.message import Message
from ..protocol.request import AgentRequest, OnDisconnect
from .answers import error_of_answer, json_of, receipt_of, translated
from .body import body_of, encoded, message_body
from .dialer import Dialer
from .feed import Transport
from .nodes import Attempts, Nodes, Retries
from .sse import SSETransport
from .stream import EventStream, Opener
from .websocket import SocketTransport

__all__ = ["AgentClient"]

SILENCE = 45.0
"""Seconds without a byte after which a stream counts as cut: three of the server's keep-alives."""

CLOSE_TIMEOUT = 5.0
"""Seconds for leaving a stream in good order."""


class AgentClient:
    """Talks to one agent, at one base URL or at those of several nodes.

        async with AgentClient("http://127.0.0.1:8090") as client:
            async with client.run("Hello") as events:
                async for event in events: ...

    Args:
        base_url: where the agent is served; several are nodes of one app, and the next is tried where one fails.
        token: sent as `Authorization: Bearer`.
        headers: sent with every request.
        transport: "sse": a connection for each run; "websocket": one for all.
        endpoint_path, websocket_path: as the server has them.
        on_disconnect: for requests that do not say. Without it the app's own holds, which may be to stop a run
            whose connection was cut, so that there is nothing to come back to.
        retries: how long to go on when connections fail.
        connect_timeout: seconds.
        silence: seconds without a byte after which a stream counts as cut; not less than two keep-alives (30 s).
        ssl_context: for `https`; None: the system's.

    Everything raises errors of `trio_agentapp.errors` only: what the server refused is the RequestError of its
    code, and a server that cannot be reached is ConnectionLost.
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
        self._stack: AsyncExitStack | None = None
        self._http: httpx.AsyncClient
        self._transport: Transport

    async def __aenter__(self) -> AgentClient:
        """
        Raises:
            ConfigurationError: there is no Trio here, as in a program of asyncio.
        """
        if not trio.lowlevel.in_trio_run():
            raise ConfigurationError(
                "AgentClient needs Trio, and this program does not run on it: start it with trio.run(main). From "
                "asyncio, use the HTTP API, such as httpx.AsyncClient().stream('POST', url + '/process', json=...)"
            )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._opened())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> bool | None:
        assert self._stack is not None  # noqa: S101
        stack, self._stack = self._stack, None
        return await stack.__aexit__(exc_type, exc_value, exc_traceback)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        """What the block raises comes out as it is, and not as a group, unless something else failed beside it."""
        own: list[BaseException] = []
        try:
            async with self._http_client() as self._http, trio.open_nursery() as nursery:
                self._transport = self._new_transport(nursery)
                try:
                    yield
                    await self._transport.aclose()
                except BaseException as exc:
                    own.append(exc)
                    raise
                finally:
                    nursery.cancel_scope.cancel(reason="the client is closed")
        except BaseExceptionGroup as group:
            if [*_leaves(group)] == own:
                raise own[0] from own[0].__cause__
            raise

    def _http_client(self) -> httpx.AsyncClient:
        """
        Raises:
            ConfigurationError: what the environment says of proxies or certificates cannot be used.
        """
        verify = self._verify()
        try:
            return httpx.AsyncClient(
                headers={"Accept-Encoding": "identity", **self._headers},
                timeout=httpx.Timeout(self._silence, connect=self._connect_timeout, pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
                verify=verify,
                # A proxy reaches its own loopback, and not this machine's.
                trust_env=not self._nodes.all_on_loopback,
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            # Of a SOCKS proxy without its package, an unknown scheme, an address in NO_PROXY that cannot be read.
            raise ConfigurationError(
                f"the proxies that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) cannot be "
                f"used: {error}"
            ) from error

    def _verify(self) -> ssl.SSLContext | bool:
        if self._ssl_context is not None:
            return self._ssl_context
        if not self._nodes.any_tls:
            return False
        try:
            return httpx.create_ssl_context()
        except OSError as error:
            names = [
                f"{name}={os.environ[name]}" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ
            ]
            raise ConfigurationError(
                f"the certificates of {' and '.join(names) or 'this machine'} cannot be read: {error}"
            ) from error

    def _new_transport(self, nursery: trio.Nursery) -> Transport:
        if self._kind == "sse":
            return SSETransport(self._nodes, self._http, nursery, path=self._endpoint_path)
        dialer = Dialer(
            self._nodes,
            path=self._websocket_path,
            headers=self._headers,
            connect_timeout=self._connect_timeout,
            silence=self._silence,
            ssl_context=self._ssl_context,
        )
        return SocketTransport(dialer, nursery)

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

        A request is what the user says, a dict of the wire's shape, or an AgentRequest; `session_id` and `user_id`
        go before those it has. Leaving the block early is a disconnect; `events.stop()` is a stop.

        Raises:
            RequestError: refused; SessionBusy, ValidationError and others tell why. Nothing was started.
            ConnectionLost: no server could be reached.
        """
        body = body_of(request, session_id, user_id, self._on_disconnect)
        own_id = not _has_id(request)
        feed = await self._opener().start(body, own_id=own_id)
        async with self._followed(
            EventStream(self, self._opener, feed, after=-1, user_id=body.get("user_id"))
        ) as events:
            yield events

    @asynccontextmanager
    async def attach(
        self, run_id: str, starting_after: int = -1, *, user_id: str | None = None
    ) -> AsyncIterator[EventStream]:
        """Follow a run that exists, from the event after `starting_after` on; an ended one is replayed.

        Raises:
            RunNotFound: unknown, or another's. RequestError: what else was refused.
            ConnectionLost: no server could be reached.
        """
        feed = await self._opener().attach(run_id, starting_after, user_id)
        stream = EventStream(self, self._opener, feed, after=starting_after, user_id=user_id)
        async with self._followed(stream) as events:
            yield events

    @asynccontextmanager
    async def _followed(self, stream: EventStream) -> AsyncIterator[EventStream]:
        try:
            yield stream
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await stream.aclose()

    def _opener(self) -> Opener:
        self._check_open()
        return Opener(self._nodes, self._transport, self._retries)

    # Single questions.

    async def stop(
        self,
        session_id: str | None = None,
        user_id: str | None = None,
        *,
        run_id: str | None = None,
        wait: bool = False,
    ) -> StopReceipt:
        """Stop the running run of a session, or a named run; with `wait`, answer when nothing of it runs any more.

        A stop by session is not repeated when its answer was lost, for by then another run may be running; one by
        run id is.
        """
        return await self._stop(session_id, user_id, run_id, wait=wait)

    async def _stop(
        self,
        session_id: str | None,
        user_id: str | None,
        run_id: str | None,
        *,
        wait: bool,
        first: int | None = None,
    ) -> StopReceipt:
        body: dict[str, Any] = {"input": []}
        for name, value in (("session_id", session_id), ("user_id", user_id), ("run_id", run_id)):
            if value is not None:
                body[name] = value
        document = await self._ask(
            "POST",
            "/stop",
            params={"wait": "1"} if wait else None,
            body=body,
            repeatable=run_id is not None,
            patient=wait,
            first=first,
        )
        return receipt_of(document)

    async def status(self, run_id: str, *, user_id: str | None = None) -> dict[str, Any]:
        """One run, as `GET /runs/{run_id}` tells of it."""
        return await self._ask("GET", f"/runs/{_segment(run_id)}", params=_user(user_id))

    async def runs(
        self,
        *,
        status: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """A page of runs, the youngest first, as `GET /runs` gives it: `runs`, and a `cursor` to go on with."""
        named = {"status": status, "session_id": session_id, "limit": limit, "cursor": cursor}
        params = {name: str(value) for name, value in named.items() if value is not None}
        return await self._ask("GET", "/runs", params=params | _user(user_id))

    async def wait(self, run_id: str, *, user_id: str | None = None) -> dict[str, Any]:
        """The terminal response of a run, when it has ended; put `trio.fail_after` around it for a bound."""
        return await self._ask("GET", f"/runs/{_segment(run_id)}/wait", params=_user(user_id), patient=True)

    async def cancel(self, run_id: str, *, user_id: str | None = None, wait: bool = False) -> StopReceipt:
        """Stop a run by its id alone; with `wait`, answer when nothing of it runs any more.

        Raises:
            RunNotFound: unknown, or another's; if it is still to come, it will not start.
        """
        params = _user(user_id) | ({"wait": "1"} if wait else {})
        return receipt_of(await self._ask("POST", f"/runs/{_segment(run_id)}/cancel", params=params, patient=wait))

    async def cancel_several(
        self, run_ids: Iterable[str] = (), *, status: str | None = None, user_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Stop the runs that are named, or all of a status, and do not wait: what each came to."""
        body: dict[str, Any] = {"run_ids": list(run_ids)} if status is None else {"status": status}
        answer = await self._ask("POST", "/runs/cancel", params=_user(user_id), body=body)
        results: list[dict[str, Any]] = answer["results"]
        return results

    async def send_input(
        self, run_id: str, message: Message | Mapping[str, Any] | str, *, user_id: str | None = None
    ) -> None:
        """Put a message into a running run, for its `run.receive()`.

        Not repeated when its answer was lost (ConnectionLost): the message could come twice.
        """
        if isinstance(message, str):
            message = {"role": "user", "content": message}
        body = message_body(message) if isinstance(message, Message) else dict(message)
        await self._ask(
            "POST", f"/runs/{_segment(run_id)}/input", params=_user(user_id), body=body, repeatable=False
        )

    async def session(self, session_id: str, *, user_id: str | None = None) -> dict[str, Any]:
        """A session, as `GET /sessions/{session_id}` tells of it."""
        return await self._ask("GET", f"/sessions/{_segment(session_id)}", params=_user(user_id))

    async def health(self) -> dict[str, Any]:
        """What `GET /health` answers."""
        return await self._ask("GET", "/health")

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        repeatable: bool = True,
        patient: bool = False,
        first: int | None = None,
    ) -> dict[str, Any]:
        """`patient`: the answer may take as long as a run does."""
        self._check_open()
        timeout = httpx.Timeout(
            None if patient and not repeatable else self._silence, connect=self._connect_timeout
        )

        async def question(node: int) -> dict[str, Any]:
            while True:
                try:
                    response = await self._http.request(
                        method,
                        self._nodes.urls[node] + path,
                        params=params,
                        content=None if body is None else encoded(body),
                        headers=None if body is None else {"Content-Type": "application/json"},
                        timeout=timeout,
                    )
                except httpx.ReadTimeout as error:
                    # A server that only waits says nothing meanwhile; asking again tells whether it is there.
                    if not patient:
                        raise translated(error) from error
                except httpx.TransportError as error:
                    raise translated(error) from error
                else:
                    break
            if response.status_code not in (200, 202):
                raise error_of_answer(response)
            document = json_of(response.content)
            if not isinstance(document, dict):
                raise UnexpectedAnswer(f"{response.url} answered with JSON that is no object")
            return document

        return await self._nodes.ask(question, Attempts(self._retries), first=first, repeatable=repeatable)

    def _check_open(self) -> None:
        if self._stack is None:
            raise RuntimeError("the client is not open: use `async with AgentClient(...) as client:`")


def _has_id(request: AgentRequest | Mapping[str, Any] | str) -> bool:
    if isinstance(request, AgentRequest):
        return request.id is not None
    return not isinstance(request, str) and request.get("id") is not None


def _segment(name: str) -> str:
    return quote(name, safe="")


def _user(user_id: str | None) -> dict[str, str]:
    return {} if user_id is None else {"user_id": user_id}


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
