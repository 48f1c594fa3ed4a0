"""`A2AClient`: agents that speak A2A, from a Trio program or from a handler."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import trio

from ...errors import A2AError, AgentAppError, ConfigurationError, UnexpectedAnswer
from ...nursery import nursery_around
from ...protocol.content import Content
from ...protocol.message import Message
from .caller import cleanup, trace_headers
from .card import origin_of
from .connection import Connection
from .decoding import task_of
from .http import Bounds, Http
from .resolving import Agent, Place, find_agent, places_of
from .stream import A2AStream
from .task import A2AReply, A2ATask, TaskState

__all__ = ["A2AClient"]

logger = logging.getLogger("trio_agentapp.a2a")

BEGIN_WITHIN = 2.0
"""Seconds for the id of a task whose caller was stopped before the agent has answered."""

MEBIBYTE = 1024 * 1024


class A2AClient:
    """A client of one agent that speaks A2A 1.0 or 0.3. Its card says which, and where.

        async with A2AClient("http://127.0.0.1:8090") as agent:
            reply = await agent.send("How is the weather?")
            async with agent.stream("And tomorrow?", context_id=reply.context_id) as stream:
                async for item in stream.items():
                    yield item

    Args:
        agent: the URL of the agent or of its card; the card itself; or with `registry` a name.
        registry: any object with `resolve(name)`, such as those of `trio_agentapp.registries`; it is open already.
        token: sent as `Authorization: Bearer`.
        headers: sent with every request.
        extensions: URIs of extensions of A2A that the client wants.
        trusted_origins: where the agent may be beside the origin of its card, such as `https://agent.example`.
            Requests carry credentials, and a card could name a server that only this machine can reach.
        timeout: seconds for `send`, if the call gives no other; None: no limit.
        connect_timeout: seconds.
        silence: seconds without a byte after which a connection counts as failed.
        max_body: bytes of an answer, or of one event. max_stream: bytes of all events of one stream.
        ssl_context: for `https`; None: the system's.

    In a handler, each request carries `traceparent`, and the time that the run has left if it has a limit. When the
    run is stopped, the tasks that it waits for are canceled at their agents, within its cleanup budget.

    All methods raise only errors of `trio_agentapp.errors`: A2AError for a refusal, ConnectionLost if the agent
    cannot be reached, UnexpectedAnswer for what is not A2A.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        registry: Any = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        extensions: Sequence[str] = (),
        trusted_origins: Sequence[str] = (),
        timeout: float | None = 600.0,
        connect_timeout: float = 5.0,
        silence: float = 60.0,
        max_body: int = 8 * MEBIBYTE,
        max_stream: int = 256 * MEBIBYTE,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if registry is not None and not callable(getattr(registry, "resolve", None)):
            raise ConfigurationError(f"registry must have a method resolve(name), which {registry!r:.100} has not")
        if min(connect_timeout, silence, max_body, max_stream, 1 if timeout is None else timeout) <= 0:
            raise ConfigurationError("A2AClient: time-outs and sizes must be greater than 0")
        self._agent = agent
        self._registry = registry
        self._headers = dict(headers or {})
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token.strip()}"
        self._extensions = tuple(extensions)
        origins = {given: origin_of(given) for given in trusted_origins}
        if wrong := [given for given, origin in origins.items() if origin is None]:
            raise ConfigurationError(
                f"trusted_origins: {wrong[0]!r:.200} is not an origin such as https://host:8443"
            )
        self._trusted = frozenset(origin for origin in origins.values() if origin is not None)
        self._timeout = timeout
        self._bounds = Bounds(
            max_body=max_body, max_stream=max_stream, connect_timeout=connect_timeout, silence=silence
        )
        self._ssl_context = ssl_context
        self._opening: AbstractAsyncContextManager[Connection]
        self._open: Connection | None = None

    async def __aenter__(self) -> A2AClient:
        """Find the agent and read its card.

        Raises:
            ConfigurationError: the program does not run on Trio, the URL is none, or the card names another origin.
            ConnectionLost: the agent or its card cannot be reached, or the registry does not have it.
            A2AError, UnexpectedAnswer: there is no card, or none with an interface that this client has.
        """
        if not trio.lowlevel.in_trio_run():
            raise ConfigurationError(
                "A2AClient needs Trio, and this program does not run on it: start it with trio.run(main)"
            )
        self._opening = self._connected()
        self._open = await self._opening.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        self._open = None
        return await self._opening.__aexit__(*error)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        places = await places_of(self._agent, self._registry)
        direct = all(_is_local(place) for place in places)
        async with (
            Http(self._bounds, self._headers, ssl_context=self._ssl_context, direct=direct) as http,
            nursery_around() as nursery,
        ):
            card, interface = await find_agent(http, places, self._trusted, trace_headers())
            connection = Connection(http, nursery, card, interface, self._extensions)
            try:
                yield connection
            finally:
                await connection.aclose()

    @property
    def _connection(self) -> Connection:
        if self._open is None:
            raise RuntimeError("the client is not open: use `async with A2AClient(...) as agent:`")
        return self._open

    @property
    def card(self) -> Mapping[str, Any]:
        """The agent's card, as it was sent."""
        return self._connection.card

    @property
    def name(self) -> str:
        return self._connection.name

    @property
    def url(self) -> str:
        """Where requests are sent."""
        return self._connection.interface.url

    @property
    def protocol_version(self) -> str:
        """The version of A2A that is used: "1.0" or "0.3"."""
        return self._connection.interface.version

    async def send(
        self,
        message: str | Message | Sequence[Content],
        *,
        task_id: str | None = None,
        context_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        output_modes: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> A2AReply:
        """Send a message, and wait until its task has ended or waits for input.

        Parameters as in `stream`. If this is cancelled, the task is canceled at the agent.

        Raises:
            AgentTaskFailed: the task ended as failed, rejected or canceled.
            trio.TooSlowError: it did not end within `timeout` seconds, by default those of the client.
        """
        async with self.stream(
            message,
            task_id=task_id,
            context_id=context_id,
            metadata=metadata,
            output_modes=output_modes,
            timeout=self._timeout if timeout is None else timeout,
        ) as stream:
            return await stream.wait()

    @asynccontextmanager
    async def stream(
        self,
        message: str | Message | Sequence[Content],
        *,
        task_id: str | None = None,
        context_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        output_modes: Sequence[str] | None = None,
        timeout: float | None = None,
        keep: bool = False,
    ) -> AsyncIterator[A2AStream]:
        """Send a message, and follow its task inside the block.

        Leaving the block before the task has ended cancels it at the agent, unless `keep`. A task that waits for
        input is canceled only if the block is left by an exception, such as the Cancelled of a stop.

        Args:
            message: text, a message or content objects.
            task_id: the task that waits for this message. context_id: the conversation to continue.
            metadata: further data for the agent. output_modes: the media types that the caller can use.
            timeout: seconds for the whole block.
            keep: the task goes on when the block is left; follow it again with `subscribe`.

        Raises:
            ItemError: the message has a part that cannot be sent. trio.TooSlowError: the time is over.
        """
        connection = self._connection
        params = connection.message_params(
            _message(message),
            task_id=task_id,
            context_id=context_id,
            metadata=metadata,
            output_modes=output_modes,
            timeout=timeout,
        )
        with nullcontext() if timeout is None else trio.fail_after(timeout):
            stream = A2AStream(connection, connection.begin(params, timeout), continues=task_id)
            async with self._followed(connection, stream, keep=keep) as followed:
                yield followed

    @asynccontextmanager
    async def subscribe(self, task_id: str, *, keep: bool = True) -> AsyncIterator[A2AStream]:
        """Follow a task that exists. The first event is the task. Leaving the block does not cancel it, if `keep`.

        Raises A2AError in the first step: there is no such task. One that has ended gives one event.
        """
        connection = self._connection
        stream = A2AStream(connection, connection.subscribe(task_id), continues=task_id)
        async with self._followed(connection, stream, keep=keep) as followed:
            yield followed

    async def get(self, task_id: str, *, history_length: int | None = None) -> A2ATask:
        """Return a task, with at most `history_length` messages of its history. Raises A2AError."""
        return await self._connection.get(task_id, history_length=history_length)

    async def cancel(self, task_id: str, *, metadata: Mapping[str, Any] | None = None) -> A2ATask:
        """Cancel a task, and return it as it is then.

        Raises A2AError: there is no such task (-32001), or it cannot be canceled, for instance has ended (-32002).
        """
        return await self._connection.cancel(task_id, metadata=metadata)

    async def list(
        self,
        *,
        context_id: str | None = None,
        state: TaskState | None = None,
        page_size: int | None = None,
        page_token: str | None = None,
        history_length: int | None = None,
        include_artifacts: bool | None = None,
    ) -> tuple[list[A2ATask], str | None]:
        """Return a page of tasks, and the token of the next page; None after the last. Only A2A 1.0 has it."""
        given = {
            "contextId": context_id,
            "status": None if state is None else "TASK_STATE_" + state.name,
            "pageSize": page_size,
            "pageToken": page_token,
            "historyLength": history_length,
            "includeArtifacts": include_artifacts,
        }
        page = await self._connection.ask(
            "list", {name: value for name, value in given.items() if value is not None}
        )
        tasks = page.get("tasks", []) if isinstance(page, dict) else None
        if not isinstance(tasks, list):
            raise UnexpectedAnswer("the agent sent something that is not a list of tasks")
        token = page.get("nextPageToken")
        return [task_of(task) for task in tasks], token if isinstance(token, str) and token else None

    @asynccontextmanager
    async def _followed(self, connection: Connection, stream: A2AStream, *, keep: bool) -> AsyncIterator[A2AStream]:
        failed = True
        try:
            yield stream
            failed = False
        finally:
            try:
                if not keep and not (stream.has_ended and not (failed and _waits(stream))):
                    await self._cancel_task(connection, stream)
            finally:
                with trio.CancelScope(shield=True):
                    await stream.aclose()

    async def _cancel_task(self, connection: Connection, stream: A2AStream) -> None:
        """Cancel the task of a stream. A failure is logged: the block is left in any case."""
        async with cleanup():
            try:
                with trio.move_on_after(BEGIN_WITHIN):
                    await stream.wait_begun()
                if stream.task_id is not None and not (stream.state is not None and stream.state.is_terminal):
                    await connection.cancel(stream.task_id)
            except A2AError as refusal:
                logger.info("agent %s: task %s was not canceled: %s", self._agent, stream.task_id, refusal)
            except AgentAppError as error:
                logger.warning("agent %s: task %s may go on: %s", self._agent, stream.task_id, error)


def _waits(stream: A2AStream) -> bool:
    return stream.state is not None and stream.state.is_interrupted


def _message(given: str | Message | Sequence[Content]) -> Message:
    return given if isinstance(given, Message) else Message(role="user", content=given)


def _is_local(place: Place) -> bool:
    return place.url is not None and (origin_of(place.url) or "").partition("//")[2].startswith("localhost:")
