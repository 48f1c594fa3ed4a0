"""The Redis client: one connection for all callers of the process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import trio
from redis.credentials import CredentialProvider
from redis.exceptions import NoScriptError, RedisError

from .backoff import Backoff
from .connection import Connection, ServerInfo
from .connector import Connector
from .deadlines import Deadlines
from .dialer import Dialer
from .errors import LinkClosed, LinkDown, LinkError, LinkOverloaded, LinkTimeout
from .fifo import Request, RequestFIFO
from .packing import Argument, Command, name_of, pack
from .replies import shaped, tells_to_reconnect
from .script import Script, ScriptCall
from .serving import serving_in_background
from .url import RedisURL

__all__ = ["RedisClient"]

log = logging.getLogger("trio_agentapp.redis")

CALL_TIMEOUT = 2.0
"""Seconds from the call to its answer, including the wait for a connection."""

START_TIMEOUT = 10.0
"""Seconds after which a start gives up on a server that does not answer."""

MAX_WAITING = 10_000
"""Replies that the server still has to send. It is far more than a node has runs."""


class RedisClient:
    """One multiplexed connection, reconnected for as long as the client is served.

    Use `async with RedisClient.open(url) as client`, or `await nursery.start(client.serve)`. All callers share the
    connection. The commands of one call or pipeline are executed one after the other; those of other callers come
    before or after them.

    A call returns the server's answer, raises the server's refusal as one of redis-py's exceptions, or raises a
    `LinkError`. Its `maybe_executed` says whether the server may have executed the call.
    """

    def __init__(
        self,
        url: str | RedisURL,
        *,
        credential_provider: CredentialProvider | None = None,
        call_timeout: float | None = None,
        start_timeout: float | None = START_TIMEOUT,
        backoff: Backoff = Backoff(),  # noqa: B008  frozen
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """Durations are in seconds. With `start_timeout=None`, `serve` has started before there is a connection.

        Raises ConfigurationError for a URL, or TLS files, that cannot work.
        """
        connector = Connector(url, role="commands", credential_provider=credential_provider)
        self.url = connector.url
        self.call_timeout = call_timeout or self.url.call_timeout or CALL_TIMEOUT
        self.on_reconnect: list[Callable[[], object]] = []
        """Called after each reconnect, before any waiting call is sent. Synchronous."""
        self.connections = 0
        """Connections made so far; all but the first are reconnects."""
        self.timeouts = 0
        """Calls that were sent and not answered in time."""
        self._start_timeout = start_timeout
        self._dialer = Dialer(connector, backoff)
        self._max_waiting = max_waiting
        self._fifo = RequestFIFO()
        self._deadlines = Deadlines()
        self._alarm = trio.CancelScope()
        self._writer = trio.lowlevel.ParkingLot()
        self._connection: Connection | None = None
        self._connection_scope: trio.CancelScope | None = None
        self._server: ServerInfo | None = None
        self._served = False
        self._closed = False
        self._sending_since: float | None = None
        self._lost: Exception | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str | RedisURL, **options: Any) -> AsyncIterator[Self]:
        """Serve a client inside the block. Takes the constructor's options; raises the errors of `serve`."""
        client = cls(url, **options)
        async with serving_in_background(client.serve):
            yield client

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def server(self) -> ServerInfo | None:
        """The server of the current connection, or of the last one; None before the first connection."""
        return self._server

    @property
    def server_run_id(self) -> str | None:
        """An id that changes when the server was restarted, or another took over; None if it is not known."""
        return self._server.run_id if self._server is not None else None

    @property
    def waiting(self) -> int:
        """Replies that the server still has to send, including those of calls that were given up."""
        return self._fifo.load

    async def call(self, *command: Argument, timeout: float | None = None, only_on: str | None = None) -> Any:
        """Return the answer to one command: `await client.call("SET", key, value, "PX", 1000)`.

        It has the shape that redis-py gives it (`replies.py`). `timeout` is in seconds, `call_timeout` by default.
        `only_on` is a server run id: if the connection leads to another server, nothing is sent.

        Raises:
            RedisError: the server refused, as one of redis-py's exceptions.
            LinkError: there was no answer. ServerChanged: see `only_on`.
            ValueError: the command cannot share a connection.
        """
        name = name_of(command)
        [reply] = await self._exchange(pack(command), 1, timeout, only_on)
        if isinstance(reply, RedisError):
            raise reply
        return shaped(name, reply)

    async def pipeline(
        self,
        commands: Iterable[Command | ScriptCall],
        *,
        timeout: float | None = None,
        only_on: str | None = None,
    ) -> list[Any]:
        """Send several commands at once, and return their answers in order. Refusals are returned, not raised.

        If the server does not hold a script, its call is sent again with the source, after all other commands were
        executed.
        """
        calls = list(commands)
        if not calls:
            await trio.lowlevel.checkpoint()
            return []
        seconds = self.call_timeout if timeout is None else timeout
        deadline = trio.current_time() + seconds
        plain = [call.by_digest if isinstance(call, ScriptCall) else call for call in calls]
        names = [name_of(command) for command in plain]
        replies = await self._exchange(b"".join(map(pack, plain)), len(plain), seconds, only_on)
        unknown = {
            i: call.by_source
            for i, call in enumerate(calls)
            if isinstance(call, ScriptCall) and isinstance(replies[i], NoScriptError)
        }
        if unknown:
            sources = b"".join(map(pack, unknown.values()))
            left = max(deadline - trio.current_time(), 0)
            try:
                again = await self._exchange(sources, len(unknown), left, only_on)
            except LinkError as error:
                error.maybe_executed |= len(unknown) < len(calls)  # the other calls were executed
                raise
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return [shaped(name, reply) for name, reply in zip(names, replies, strict=True)]

    async def script(self, script: Script, keys: Sequence[Argument] = (), args: Sequence[Argument] = ()) -> Any:
        """Return the answer of one script. If the server does not hold it, its source is sent."""
        [reply] = await self.pipeline([script.bind(keys, args)])
        if isinstance(reply, RedisError):
            raise reply
        return reply

    async def _exchange(self, payload: bytes, count: int, timeout: float | None, only_on: str | None) -> list[Any]:
        if self._closed or not self._served:
            raise LinkClosed(f"The Redis client is {'closed' if self._closed else 'not served yet'}.")
        if self._fifo.load + count > self._max_waiting:
            raise LinkOverloaded(f"{self._fifo.load} replies are still due; the limit is {self._max_waiting}.")
        seconds = self.call_timeout if timeout is None else timeout
        request = Request(payload, count, only_on, seconds)
        self._fifo.add(request)
        self._writer.unpark()
        deadline = trio.current_time() + seconds
        self._deadlines.add(deadline, request)
        if deadline < self._alarm.deadline:
            self._alarm.deadline = deadline

        def withdraw(_: object) -> trio.lowlevel.Abort:
            self._fifo.abandon(request)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(withdraw)
        if request.failure is not None:
            raise request.failure
        return request.replies

    async def _watch_deadlines(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            with trio.CancelScope(deadline=self._deadlines.earliest()) as self._alarm:
                await trio.sleep_forever()
            for request in self._deadlines.expired(trio.current_time()):
                self._fifo.expire(request, self._give_up(request))

    def _give_up(self, request: Request) -> LinkError:
        seconds = request.timeout
        if not request.written:
            since = self._sending_since
            if since is not None and trio.current_time() - since >= self.call_timeout:
                # The callers whose commands fill the send buffer may be cancelled; then no call of theirs times
                # out.
                self._replace(LinkTimeout(f"nothing could be sent for {self.call_timeout:g} s"))
            reason = self._lost if self.connected else self._dialer.last_error
            failure = LinkDown(f"No connection to Redis at {self.url} within {seconds:g} s: {reason}")
            failure.__cause__ = reason
            return failure
        self.timeouts += 1
        # The server may be stopped or cut off. Only a new connection shows it.
        self._replace(LinkTimeout(f"no answer within {seconds:g} s"))
        return LinkTimeout(f"Redis at {self.url} did not answer within {seconds:g} s.", maybe_executed=True)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the connection until cancelled. It has started once it is connected (see `start_timeout`).

        Errors after the start are logged, and the connection is made again.

        Raises, before it has started:
            LinkDown: no connection could be made in time.
            RedisError: the server refused the log-in, as one of redis-py's exceptions.
            ConfigurationError: the server's certificate is not accepted.
        """
        if self._served:
            raise RuntimeError("a RedisClient is served once")
        self._served = True
        try:
            async with serving_in_background(self._watch_deadlines):
                if self._start_timeout is None:
                    task_status.started()
                    connection = await self._dialer.connect_again()
                else:
                    connection = await self._dialer.connect_first(self._start_timeout)
                    task_status.started()
                while True:
                    await self._use(connection)
                    connection = await self._dialer.connect_again(self._lost)
        finally:
            self._closed = True
            self._fifo.fail_unwritten(LinkClosed, "The Redis client was closed.")

    async def _use(self, connection: Connection) -> None:
        """Serve calls until the connection is lost or replaced."""
        self.connections += 1
        self._server = connection.server
        if self.connections > 1:
            log.info("Connected to Redis at %s again.", connection.server.address)
            for callback in self.on_reconnect:
                try:
                    callback()
                except Exception:
                    log.exception("A callback of on_reconnect failed.")
        address = connection.server.address
        self._lost = self._sending_since = None
        try:
            async with trio.open_nursery() as nursery:
                self._connection_scope = nursery.cancel_scope
                self._connection = connection
                nursery.start_soon(self._guard, self._read, connection)
                nursery.start_soon(self._guard, self._write, connection)
        finally:
            self._connection = self._connection_scope = None
            self._fifo.fail_in_flight(*self._why(address))
            await connection.aclose()
        log.warning("The connection to Redis at %s was lost: %s", address, self._lost)

    def _why(self, address: str) -> tuple[type[LinkError], str]:
        if self._lost is None:
            return LinkClosed, "The Redis client was closed before the answer."
        return LinkDown, f"The connection to Redis at {address} was lost before the answer: {self._lost}"

    async def _guard(self, task: Callable[[Connection], Any], connection: Connection) -> None:
        try:
            await task(connection)
        except LinkDown as error:
            self._replace(error)

    def _replace(self, reason: Exception) -> None:
        """Close the current connection; `serve` makes another one."""
        if self._connection_scope is not None and self._lost is None:
            self._lost = reason
            self._connection_scope.cancel()

    async def _write(self, connection: Connection) -> None:
        """Send all calls that came since the last write at once."""
        run_id = connection.server.run_id
        while True:
            if payload := self._fifo.take(run_id):
                self._sending_since = trio.current_time()
                await connection.send(payload)
                self._sending_since = None
            else:
                await self._writer.park()

    async def _read(self, connection: Connection) -> None:
        answer = self._fifo.answer
        while True:
            for reply in await connection.receive():
                if isinstance(reply, RedisError) and tells_to_reconnect(reply):
                    self._replace(reply)
                answer(reply)
