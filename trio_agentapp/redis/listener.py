"""The Redis listener: one subscription connection for all channels of the process."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

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

__all__ = ["RedisListener"]

log = logging.getLogger("trio_agentapp.redis")

PING_AFTER = 5.0
"""Seconds of silence after which a PING is sent."""

PONG_WITHIN = 2.0
"""Seconds within which the server must answer a PING, or any other command."""

START_TIMEOUT = 10.0
"""Seconds after which a start gives up on a server that does not answer."""

RETRY_GAP_AFTER = 0.5
"""Seconds to the next call of an `on_gap` that failed."""

Channel = str | bytes

Deliver = Callable[[bytes, bytes], object]

OnGap = Callable[[], object]


class _Subscription:
    """One channel, from `subscribe` to `unsubscribe`, over any number of connections."""

    def __init__(self, channel: bytes) -> None:
        self.channel = channel
        self.settled = trio.Event()
        """Confirmed or refused on the current connection, or unsubscribed."""
        self.refusal: Exception | None = None
        self.accepted = False
        """Confirmed on this connection or an earlier one."""


class RedisListener:
    """One subscription connection, reconnected for as long as `listen` runs.

    Pub/sub loses messages while the connection is down, without notice. Therefore `on_gap` is called for each new
    connection, once all its subscriptions are confirmed. From then on every message is delivered; what was
    published before must be read from where it is stored.

    Channels are passed as bytes or text (UTF-8), and delivered as bytes.
    """

    def __init__(
        self,
        url: str | RedisURL,
        *,
        credential_provider: CredentialProvider | None = None,
        start_timeout: float = START_TIMEOUT,
        ping_after: float = PING_AFTER,
        pong_within: float = PONG_WITHIN,
        backoff: Backoff = Backoff(),  # noqa: B008  frozen
    ) -> None:
        """Durations are in seconds. Raises ConfigurationError for a URL, or TLS files, that cannot work."""
        self.connections = 0
        """Connections made so far."""
        self.gaps = 0
        """How often messages may have been lost."""
        self._dialer = Dialer(Connector(url, role="listener", credential_provider=credential_provider), backoff)
        self._start_timeout = start_timeout
        self._ping_after = ping_after
        self._pong_within = pong_within
        self._wanted: dict[bytes, _Subscription] = {}
        self._unconfirmed: deque[_Subscription] = deque()
        """In the order of the SUBSCRIBE commands. The server confirms them in that order."""
        self._outbox: list[bytes] = []
        self._writer = trio.lowlevel.ParkingLot()
        self._gap = trio.lowlevel.ParkingLot()
        self._gap_pending = False
        self._connection: Connection | None = None
        self._connection_scope = trio.CancelScope()
        self._silence = trio.CancelScope()
        self._last_heard = 0.0
        self._asked_at: float | None = None
        """When a command was sent; None once any reply was received after it."""
        self._lost: Exception | None = None
        self._served = self._closed = False

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def subscribe(self, channel: Channel) -> None:
        """Subscribe to `channel`, and wait until the server has confirmed it. Messages are delivered from then on.

        It waits through reconnects, without a timeout. If it is cancelled the subscription stays: call
        `unsubscribe` in a `finally`.

        Raises:
            NoPermissionError: the server refuses the channel. It is not subscribed then.
            LinkClosed: the listener has ended.
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
        """Unsubscribe. From now on nothing is delivered from `channel`. Unknown channels are ignored."""
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
            # One command for each channel, since a refusal does not name the channel.
            self._send(("SUBSCRIBE", subscription.channel))

    async def listen(
        self, *, deliver: Deliver, on_gap: OnGap, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen until cancelled. It has started once there is a connection.

        `deliver(channel, payload)` must be synchronous and quick. An exception of it is logged.
        `on_gap()` is called when messages may have been lost, also for the first connection. If it raises, it is
        called again after `RETRY_GAP_AFTER`.

        Errors after the start are logged, and the connection is made again.

        Raises, before it has started:
            LinkDown: no connection could be made in time.
            RedisError: the server refused the log-in, as one of redis-py's exceptions.
        """
        if self._served:
            raise RuntimeError("a RedisListener listens once")
        self._served = True
        try:
            connection = await self._dialer.connect_first(self._start_timeout)
            async with serving_in_background(partial(self._report_gaps, on_gap)):
                task_status.started()
                while True:
                    await self._use(connection, deliver)
                    connection = await self._dialer.connect_again(self._lost)
        finally:
            self._closed = True
            for subscription in self._wanted.values():
                subscription.settled.set()

    async def _use(self, connection: Connection, deliver: Deliver) -> None:
        """Deliver messages until the connection is lost."""
        self.connections += 1
        self._connection, self._lost = connection, None
        self._last_heard, self._asked_at = trio.current_time(), None
        self._outbox.clear()
        self._unconfirmed.clear()
        subscriptions = list(self._wanted.values())
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
                self.gaps += 1
                self._gap_pending = True
                self._gap.unpark()
        finally:
            self._connection = None
            for subscription in self._wanted.values():
                if subscription.settled.is_set():
                    subscription.settled = trio.Event()
            await connection.aclose()
        log.warning("The listener's connection to Redis at %s was lost: %s", connection.server.address, self._lost)

    def _lose(self, reason: Exception) -> None:
        """Close the current connection; `listen` makes another one."""
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

    def _take_refusal(self, error: RedisError) -> None:
        if tells_to_reconnect(error) or not self._unconfirmed:
            raise LinkDown(f"the server answered: {error}") from error
        subscription = self._unconfirmed.popleft()
        log.error("Redis refused a subscription to %r: %s", subscription.channel, error)
        if not subscription.accepted:
            subscription.refusal = error
            if self._wanted.get(subscription.channel) is subscription:
                del self._wanted[subscription.channel]
        # A channel that was accepted before is subscribed again on the next connection.
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
        """Send a PING to a silent server, and give up the connection if there is no reply."""
        while True:
            asked_at = self._asked_at
            deadline = self._last_heard + self._ping_after if asked_at is None else asked_at + self._pong_within
            if deadline <= trio.current_time():
                if asked_at is not None:
                    self._lose(LinkDown(f"no reply within {self._pong_within:g} s"))
                    return
                self._send(("PING",))
                continue
            with trio.CancelScope(deadline=deadline) as self._silence:
                await trio.sleep_forever()

    async def _report_gaps(self, on_gap: OnGap, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            while not self._gap_pending:
                await self._gap.park()
            self._gap_pending = False
            try:
                on_gap()
            except Exception:
                log.exception("on_gap failed; it is called again.")
                self._gap_pending = True
                await trio.sleep(RETRY_GAP_AFTER)


def _bytes(channel: Channel) -> bytes:
    return channel.encode() if isinstance(channel, str) else channel
