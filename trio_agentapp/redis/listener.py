"""Listening: one subscription connection for all channels of the process."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import attrs
import trio
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from .backoff import Backoff
from .connection import Connection
from .connector import Connector
from .dialer import Dialer
from .errors import LinkClosed, LinkDown
from .packing import Command, pack
from .replies import tells_to_reconnect
from .serving import serving_in_background
from .url import RedisURL

__all__ = ["ListenerStatistics", "RedisListener"]

log = logging.getLogger("trio_agentapp.redis")

PING_AFTER = 5.0
"""Seconds of silence after which the server is asked for a sign of life (INTERRUPT-PROTOCOL, section 5)."""

PONG_WITHIN = 2.0
"""Seconds it has for it."""

START_TIMEOUT = 10.0
"""Seconds after which a start gives up on a server that does not answer."""

RETRY_GAP_AFTER = 0.5
"""Seconds to the next call of an `on_gap` that failed."""

Channel = str | bytes

Deliver = Callable[[bytes, bytes], object]

OnGap = Callable[[], Awaitable[object] | None]


@attrs.frozen(kw_only=True)
class ListenerStatistics:
    connected: bool
    channels: int
    connections: int
    messages: int
    gaps: int
    """Times that messages may have been missed."""
    last_error: str | None


class _Subscription:
    """A channel that is wanted, from `subscribe` to `unsubscribe`, over any number of connections."""

    def __init__(self, channel: bytes) -> None:
        self.channel = channel
        self.announce = False
        """Whether a gap is to be reported once the server has confirmed it."""
        self.settled = trio.Event()
        """Confirmed or refused by the server of the present connection, or not wanted any more."""
        self.refusal: Exception | None = None
        self.accepted = False
        """Confirmed by some connection, be it an earlier one."""


class RedisListener:
    """One connection that listens, reconnected for as long as `listen` runs.

    Pub/sub loses messages whenever the connection is down, and tells nobody. `on_gap` does: it is called for every
    new connection, once its subscriptions are confirmed and everything published from then on will be heard, so
    that what was published before can be read from where it is kept. Channels are bytes or text (UTF-8) on the way
    in, bytes on the way out.
    """

    def __init__(
        self,
        url: str | RedisURL,
        *,
        credential_provider: CredentialProvider | None = None,
        connect_timeout: float | None = None,
        start_timeout: float | None = START_TIMEOUT,
        ping_after: float = PING_AFTER,
        pong_within: float = PONG_WITHIN,
        backoff: Backoff = Backoff(),  # noqa: B008  frozen
    ) -> None:
        """Durations in seconds. `start_timeout=None`: `listen` is ready before there is a connection.

        Raises ConfigurationError for a URL, or TLS files, that cannot work.
        """
        connector = Connector(
            url, role="listener", credential_provider=credential_provider, timeout=connect_timeout
        )
        self.url = connector.url
        self._dialer = Dialer(connector, backoff)
        self._start_timeout = start_timeout
        self._ping_after = ping_after
        self._pong_within = pong_within
        self._wanted: dict[bytes, _Subscription] = {}
        self._unconfirmed: deque[_Subscription] = deque()
        """In the order in which the server was asked: it answers in that order."""
        self._outbox: list[bytes] = []
        self._writer = trio.lowlevel.ParkingLot()
        self._gap = trio.lowlevel.ParkingLot()
        self._gap_pending = False
        self._connection: Connection | None = None
        self._connection_scope = trio.CancelScope()
        self._silence = trio.CancelScope()
        self._last_heard = 0.0
        self._asked_at: float | None = None
        """When the server was asked something; None once anything was heard after it."""
        self._lost: Exception | None = None
        self._served = self._started = self._closed = False
        self._connections = self._messages = self._gaps = 0

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def channels(self) -> frozenset[bytes]:
        """The channels that are wanted, whether there is a connection or not."""
        return frozenset(self._wanted)

    def statistics(self) -> ListenerStatistics:
        error = self._dialer.last_error
        return ListenerStatistics(
            connected=self.connected,
            channels=len(self._wanted),
            connections=self._connections,
            messages=self._messages,
            gaps=self._gaps,
            last_error=str(error) if error is not None else None,
        )

    def subscribe_nowait(self, channel: Channel) -> None:
        """Want `channel` from now on. Once the server has confirmed it, `on_gap` is called."""
        subscription = self._want(channel)
        if subscription.settled.is_set():
            self._report_gap()
        else:
            subscription.announce = True

    async def subscribe(self, channel: Channel) -> None:
        """Want `channel`, and wait until the server has confirmed it: what is published from then on is heard.

        Returning is the report of the gap here; `on_gap` is not called for it. Waits through reconnects, without a
        time-out of its own. Cancelled, it leaves the channel wanted: `unsubscribe` belongs in a `finally`.
        Raises redis-py's NoPermissionError if the server refuses (the channel is not wanted then), LinkClosed if
        the listener has ended.
        """
        await trio.lowlevel.checkpoint()
        subscription = self._want(channel)
        while subscription.refusal is None and self._wanted.get(subscription.channel) is subscription:
            if self._closed:
                raise LinkClosed("The Redis listener is closed.")
            if subscription.settled.is_set():
                return
            await subscription.settled.wait()
        if subscription.refusal is not None:
            raise subscription.refusal

    def unsubscribe(self, channel: Channel) -> None:
        """Nothing more is delivered from `channel`, from this moment on. Unknown channels are ignored."""
        if (subscription := self._wanted.pop(_bytes(channel), None)) is not None:
            subscription.settled.set()
            self._send(("UNSUBSCRIBE", subscription.channel))

    def _want(self, channel: Channel) -> _Subscription:
        if self._closed:
            raise LinkClosed("The Redis listener is closed.")
        name = _bytes(channel)
        if (subscription := self._wanted.get(name)) is None:
            subscription = self._wanted[name] = _Subscription(name)
            self._ask_for(subscription)
        return subscription

    def _ask_for(self, subscription: _Subscription) -> None:
        if self._connection is not None:
            self._unconfirmed.append(subscription)
            # One command for each channel: a refusal then names one, not all.
            self._send(("SUBSCRIBE", subscription.channel))

    async def listen(
        self,
        *channels: Channel,
        deliver: Deliver,
        on_gap: OnGap,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until cancelled. Ready means that all channels are confirmed (see `start_timeout`).

        `deliver(channel, payload)` is synchronous, quick, and does not raise; if it does, that is logged.
        `on_gap()`, synchronous or not, is called for the first connection too. Its calls never overlap; gaps that
        come while one runs are reported together after it. If it raises, it is called again after a pause.

        Before it is ready it raises LinkDown if no connection could be made in time, or redis-py's error if the
        log-in or a channel is refused. Later all of these are logged and tried again.
        """
        if self._served:
            raise RuntimeError("a RedisListener listens once")
        self._served = True
        try:
            for channel in channels:
                self._want(channel)
            if self._start_timeout is None:
                self._started = True
                task_status.started()
                connection = await self._dialer.connect_again()
            else:
                connection = await self._dialer.connect_first(self._start_timeout)
            async with serving_in_background(partial(self._report_gaps, on_gap)):
                while True:
                    await self._use(connection, deliver, task_status)
                    connection = await self._dialer.connect_again(self._lost)
        finally:
            self._closed = True
            for subscription in self._wanted.values():
                subscription.settled.set()

    async def _use(self, connection: Connection, deliver: Deliver, task_status: trio.TaskStatus[None]) -> None:
        """Until the connection is lost, or the listener is cancelled."""
        self._connections += 1
        self._connection, self._lost = connection, None
        self._last_heard, self._asked_at = trio.current_time(), None
        self._outbox.clear()
        self._unconfirmed.clear()
        subscriptions = list(self._wanted.values())
        refused: list[Exception] = []
        for subscription in subscriptions:
            self._ask_for(subscription)
        try:
            async with trio.open_nursery() as nursery:
                self._connection_scope = nursery.cancel_scope
                nursery.start_soon(self._read, connection, deliver)
                nursery.start_soon(self._write, connection)
                nursery.start_soon(self._watch)
                for subscription in subscriptions:
                    await subscription.settled.wait()
                refused += [s.refusal for s in subscriptions if s.refusal is not None]
                if self._started or not refused:
                    self._report_gap()
                    if not self._started:
                        self._started = True
                        task_status.started()
                else:
                    nursery.cancel_scope.cancel()
        finally:
            self._connection = None
            for subscription in self._wanted.values():
                if subscription.settled.is_set():
                    subscription.settled = trio.Event()
            await connection.aclose()
        if not self._started and refused:
            raise refused[0]
        log.warning("The listener's connection to Redis at %s was lost: %s", connection.server.address, self._lost)

    def _lose(self, reason: Exception) -> None:
        """Have the present connection closed and another one made."""
        if self._lost is None:
            self._lost = reason
            self._connection_scope.cancel()

    async def _read(self, connection: Connection, deliver: Deliver) -> None:
        try:
            while True:
                replies = await connection.receive()
                self._last_heard = trio.current_time()
                if self._asked_at is not None:
                    self._asked_at = None
                    self._silence.deadline = self._last_heard + self._ping_after
                for reply in replies:
                    self._take(reply, deliver)
        except LinkDown as error:
            self._lose(error)

    def _take(self, reply: Any, deliver: Deliver) -> None:
        if isinstance(reply, RedisError):
            self._take_refusal(reply)
            return
        if not isinstance(reply, list) or len(reply) != 3:
            return  # an answer to PING
        kind, channel, payload = reply
        if kind == b"message":
            self._messages += 1
            if channel in self._wanted:
                try:
                    deliver(channel, payload)
                except Exception:
                    log.exception("A message of channel %r could not be delivered.", channel)
        elif kind == b"subscribe":
            if not self._unconfirmed or (subscription := self._unconfirmed.popleft()).channel != channel:
                raise LinkDown(f"the server confirmed a channel that was not asked for: {channel!r}")
            subscription.accepted = True
            subscription.settled.set()
            if subscription.announce:
                subscription.announce = False
                self._report_gap()

    def _take_refusal(self, error: RedisError) -> None:
        if tells_to_reconnect(error) or not self._unconfirmed:
            raise LinkDown(f"the server answered: {error}") from error
        subscription = self._unconfirmed.popleft()
        log.error("Redis refused a subscription to %r: %s", subscription.channel, error)
        if not subscription.accepted:
            subscription.refusal = error
            if self._wanted.get(subscription.channel) is subscription:
                del self._wanted[subscription.channel]
        # One that was accepted before is asked for again with the next connection.
        subscription.settled.set()

    def _send(self, command: Command) -> None:
        if self._connection is None:
            return
        self._outbox.append(pack(command))
        self._writer.unpark()
        if self._asked_at is None:
            self._asked_at = trio.current_time()
            self._silence.deadline = self._asked_at + self._pong_within

    async def _write(self, connection: Connection) -> None:
        try:
            while True:
                if self._outbox:
                    data = b"".join(self._outbox)
                    self._outbox.clear()
                    await connection.send(data)
                else:
                    await self._writer.park()
        except LinkDown as error:
            self._lose(error)

    async def _watch(self) -> None:
        """Ask a silent server for a sign of life, and leave it if it gives none."""
        while True:
            asked_at = self._asked_at
            deadline = self._last_heard + self._ping_after if asked_at is None else asked_at + self._pong_within
            if deadline <= trio.current_time():
                if asked_at is not None:
                    self._lose(LinkDown(f"no sign of life within {self._pong_within:g} s"))
                    return
                self._send(("PING",))
                continue
            with trio.CancelScope(deadline=deadline) as self._silence:
                await trio.sleep_forever()

    def _report_gap(self) -> None:
        self._gaps += 1
        self._gap_pending = True
        self._gap.unpark()

    async def _report_gaps(self, on_gap: OnGap, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            while not self._gap_pending:
                await self._gap.park()
            self._gap_pending = False
            try:
                result = on_gap()
                if inspect.isawaitable(result):
                    await result
            except Exception:
                log.exception("on_gap failed; it is called again.")
                self._gap_pending = True
                await trio.sleep(RETRY_GAP_AFTER)


def _bytes(channel: Channel) -> bytes:
    return channel.encode() if isinstance(channel, str) else channel
