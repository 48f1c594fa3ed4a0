"""Commands: one connection for all callers of the process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import attrs
import hiredis
import trio
from redis.credentials import CredentialProvider
from redis.exceptions import ExecAbortError, NoScriptError, RedisError

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

__all__ = ["ClientStatistics", "RedisClient"]

log = logging.getLogger("trio_agentapp.redis")

CALL_TIMEOUT = 2.0
"""Seconds from the call to its answer, waiting for a connection included (INTERRUPT-PROTOCOL, section 2)."""

START_TIMEOUT = 10.0
"""Seconds after which a start gives up on a server that does not answer."""

MAX_WAITING = 10_000
"""Replies to come. Far more than runs on one node: past it the server is slower than the calls, for good."""


@attrs.frozen(kw_only=True)
class ClientStatistics:
    connected: bool
    waiting: int
    """Replies to come, of calls that were given up too."""
    unwritten: int
    in_flight: int
    connections: int
    """Connections made so far; all but the first are reconnects."""
    timeouts: int
    last_error: str | None


class RedisClient:
    """One multiplexed connection, reconnected for as long as the client is served.

    `async with RedisClient.open(url) as client`, or `await nursery.start(client.serve)`. Callers share the
    connection and its order: what one task writes with one call or pipeline is not torn apart by others.

    Every call either gives the server's answer, raises the server's refusal as one of redis-py's exceptions, or
    raises a `LinkError`, whose `maybe_executed` tells whether the server may have executed it.
    """

    def __init__(
        self,
        url: str | RedisURL,
        *,
        credential_provider: CredentialProvider | None = None,
        call_timeout: float | None = None,
        connect_timeout: float | None = None,
        start_timeout: float | None = START_TIMEOUT,
        backoff: Backoff = Backoff(),  # noqa: B008  frozen
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """Durations in seconds. `start_timeout=None`: `serve` is ready before there is a connection.

        Raises ConfigurationError for a URL, or TLS files, that cannot work.
        """
        connector = Connector(
            url, role="commands", credential_provider=credential_provider, timeout=connect_timeout
        )
        self.url = connector.url
        self.call_timeout = call_timeout or self.url.call_timeout or CALL_TIMEOUT
        self.on_reconnect: list[Callable[[], object]] = []
        """Called after every connection but the first, before anything that waits is written to it. Synchronous."""
        self._start_timeout = start_timeout
        self._dialer = Dialer(connector, backoff)
        self._max_waiting = max_waiting
        self._fifo = RequestFIFO()
        self._deadlines = Deadlines()
        self._alarm = trio.CancelScope()
        self._writer = trio.lowlevel.ParkingLot()
        self._connection: Connection | None = None
        self._connection_scope: trio.CancelScope | None = None
        self._connected = trio.Event()
        self._server: ServerInfo | None = None
        self._served = False
        self._closed = False
        self._connections = 0
        self._timeouts = 0
        self._sending_since: float | None = None
        self._lost: Exception | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str | RedisURL, **options: Any) -> AsyncIterator[Self]:
        """A client that is connected, until the block ends. Options of the constructor, errors of `serve`."""
        client = cls(url, **options)
        async with serving_in_background(client.serve):
            yield client

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def server(self) -> ServerInfo | None:
        """About the server of the present connection, or else of the last one; None before the first."""
        return self._server

    @property
    def server_run_id(self) -> str | None:
        """Changes when the server was restarted, or another one took over. None: not connected yet, or not told."""
        return self._server.run_id if self._server is not None else None

    async def wait_connected(self) -> None:
        """Wait until there is a connection; it may be lost again at any time."""
        while self._connection is None:
            await self._connected.wait()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> ClientStatistics:
        return ClientStatistics(
            connected=self.connected,
            waiting=self._fifo.load,
            unwritten=self._fifo.unwritten,
            in_flight=self._fifo.in_flight,
            connections=self._connections,
            timeouts=self._timeouts,
            last_error=str(error) if (error := self._dialer.last_error) is not None else None,
        )

    async def call(self, *command: Argument, timeout: float | None = None, only_on: str | None = None) -> Any:
        """The answer to one command: `await client.call("SET", key, value, "PX", 1000)`.

        It has the shape redis-py gives it (`replies.py`). `timeout` in seconds, the client's own by default.
        `only_on`: a server run id; anything else than that very server gets nothing and `ServerChanged` is raised.
        Raises redis-py's exceptions for what the server refused, `LinkError` for the link, ValueError for commands
        that cannot share a connection.
        """
        name = name_of(command)
        [reply], protocol = await self._exchange(pack(command), 1, timeout, only_on)
        if isinstance(reply, RedisError):
            raise reply
        return shaped(name, command, reply, protocol)

    async def pipeline(
        self,
        commands: Iterable[Command | ScriptCall],
        *,
        timeout: float | None = None,
        only_on: str | None = None,
        transaction: bool = False,
    ) -> list[Any]:
        """The answers to several commands, written at once, in their order; refusals stand among them, not raised.

        Script calls whose script the server does not hold are sent a second time with their source, after all
        others were executed. `transaction` puts MULTI and EXEC around them: all or, with ExecAbortError, none.
        """
        calls = list(commands)
        if not calls:
            await trio.lowlevel.checkpoint()
            return []
        seconds = self.call_timeout if timeout is None else timeout
        deadline = trio.current_time() + seconds
        plain = [call.by_digest if isinstance(call, ScriptCall) else call for call in calls]
        names = [name_of(command) for command in plain]
        if transaction:
            # NOSCRIPT inside of a transaction could not be mended: the rest of it would have happened.
            plain = [call.by_source if isinstance(call, ScriptCall) else call for call in calls]
            replies, protocol = await self._transact(plain, seconds, only_on)
        else:
            replies, protocol = await self._exchange(b"".join(map(pack, plain)), len(plain), seconds, only_on)
        unknown = {
            i: call.by_source
            for i, call in enumerate(calls)
            if isinstance(call, ScriptCall) and isinstance(replies[i], NoScriptError)
        }
        if unknown:
            sources = b"".join(map(pack, unknown.values()))
            left = max(deadline - trio.current_time(), 0)
            try:
                again, _ = await self._exchange(sources, len(unknown), left, only_on)
            except LinkError as error:
                error.maybe_executed |= len(unknown) < len(calls)  # the others were
                raise
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return [
            shaped(name, command, reply, protocol)
            for name, command, reply in zip(names, plain, replies, strict=True)
        ]

    async def script(
        self,
        script: Script,
        keys: Sequence[Argument] = (),
        args: Sequence[Argument] = (),
        *,
        timeout: float | None = None,
        only_on: str | None = None,
    ) -> Any:
        """The answer of one script; sent by its digest, and by its source if the server does not hold it."""
        [reply] = await self.pipeline([script.bind(keys, args)], timeout=timeout, only_on=only_on)
        if isinstance(reply, RedisError):
            raise reply
        return reply

    async def _transact(
        self, commands: list[Command], timeout: float, only_on: str | None
    ) -> tuple[list[Any], int]:
        payload = b"".join(map(pack, [("MULTI",), *commands, ("EXEC",)]))
        (*queued, executed), protocol = await self._exchange(payload, len(commands) + 2, timeout, only_on)
        if isinstance(executed, RedisError):
            reason = next((reply for reply in queued if isinstance(reply, RedisError)), None)
            if isinstance(executed, ExecAbortError) and reason is not None:
                raise executed from reason
            raise executed
        return list(executed), protocol

    async def _exchange(
        self, payload: bytes, count: int, timeout: float | None, only_on: str | None
    ) -> tuple[list[Any], int]:
        if self._closed or not self._served:
            raise LinkClosed(f"The Redis client is {'closed' if self._closed else 'not served yet'}.")
        if self._fifo.load + count > self._max_waiting:
            raise LinkOverloaded(f"{self._fifo.load} replies are due already; at most {self._max_waiting} may be.")
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
        return request.replies, request.protocol

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
                # Those whose commands fill the way may all have been cancelled, and would never tell.
                self._replace(LinkTimeout(f"nothing could be sent for {self.call_timeout:g} s"))
            reason = self._lost if self.connected else self._dialer.last_error
            failure = LinkDown(f"No connection to Redis at {self.url} within {seconds:g} s: {reason}")
            failure.__cause__ = reason
            return failure
        self._timeouts += 1
        # A server that is stopped, or cut off, looks just like this; only a new connection finds out.
        self._replace(LinkTimeout(f"no answer within {seconds:g} s"))
        return LinkTimeout(f"Redis at {self.url} did not answer within {seconds:g} s.", maybe_executed=True)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the connection until cancelled. Ready means connected (see `start_timeout`).

        Before that it raises LinkDown if no connection could be made in time, redis-py's AuthenticationError or
        another refusal of the log-in, or ConfigurationError for a certificate. Later all of these are logged and
        tried again.
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
        """Until the connection is lost, given up, or the client is cancelled."""
        self._connections += 1
        self._server = connection.server
        if self._connections > 1:
            log.info("Connected to Redis at %s again.", connection.server.address)
            self._tell_reconnected()
        address = connection.server.address
        self._lost = self._sending_since = None
        try:
            async with trio.open_nursery() as nursery:
                self._connection_scope = nursery.cancel_scope
                self._connection = connection
                self._connected.set()
                nursery.start_soon(self._guard, self._read, connection)
                nursery.start_soon(self._guard, self._write, connection)
        finally:
            self._connection = self._connection_scope = None
            self._connected = trio.Event()
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
        """Have the present connection closed and another one made."""
        if self._connection_scope is not None and self._lost is None:
            self._lost = reason
            self._connection_scope.cancel()

    async def _write(self, connection: Connection) -> None:
        """All calls that came since the last time go out in one piece."""
        run_id = connection.server.run_id
        while True:
            if payload := self._fifo.take(run_id, connection.server.protocol):
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
                if not isinstance(reply, hiredis.PushNotification):
                    answer(reply)

    def _tell_reconnected(self) -> None:
        for callback in self.on_reconnect:
            try:
                callback()
            except Exception:
                log.exception("A callback of on_reconnect failed.")
