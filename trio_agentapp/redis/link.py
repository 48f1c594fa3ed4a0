"""Both connections of a process to one server, for all parts that use it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from .commands import RedisClient
from .errors import LinkClosed
from .listener import RedisListener
from .packing import Command
from .script import ScriptCall
from .serving import serving_in_background
from .url import RedisURL

__all__ = ["RedisLink"]

logger = logging.getLogger("trio_agentapp.redis")

Receive = Callable[[bytes], object]

CONFIRMED_WITHIN = 1.0
"""Seconds to wait for the confirmation of a subscription. Without it callers poll, so they need not wait longer."""


class RedisLink:
    """One connection for commands and one for listening, for any number of runs and readers.

    Its owner serves it; meanwhile all others use `client`, `ask` and `subscribed`. It may be served again.
    """

    def __init__(
        self, url: RedisURL, *, credential_provider: CredentialProvider | None = None, call_timeout: float
    ) -> None:
        self.url = url
        self._credentials = credential_provider
        self._call_timeout = call_timeout
        self._receivers: dict[bytes, list[Receive]] = {}
        self.on_gap: list[Callable[[], object]] = []
        """Called when messages may have been lost. Synchronous."""
        self.client: RedisClient
        self.listener: RedisListener
        self.renew()

    def renew(self) -> None:
        """Make a new client and listener, since each of them is served once."""
        self.client = RedisClient(self.url, credential_provider=self._credentials, call_timeout=self._call_timeout)
        self.listener = RedisListener(self.url, credential_provider=self._credentials)

    @asynccontextmanager
    async def serving(self, check: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Keep both connections inside the block. `check` is called when commands can be sent."""

        async def listen(*, task_status: trio.TaskStatus[None]) -> None:
            await self.listener.listen(deliver=self._deliver, on_gap=self._report_gap, task_status=task_status)

        async with serving_in_background(self.client.serve):
            await check()
            async with serving_in_background(listen):
                yield

    def _report_gap(self) -> None:
        for report in self.on_gap:
            report()

    async def ask(self, *calls: ScriptCall | Command, only_on: str | None = None) -> Any:
        """Return the answers of one round trip. The first refusal is raised."""
        replies = await self.client.pipeline(calls, only_on=only_on)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        return replies

    @asynccontextmanager
    async def subscribed(self, channel: str, receive: Receive, *, confirmed: bool = False) -> AsyncIterator[None]:
        """Inside this block, call `receive` with the messages of `channel`.

        With `confirmed`, the block begins when the server has confirmed the subscription; a refusal is raised.
        Otherwise it begins after `CONFIRMED_WITHIN` at the latest, and a refusal is logged.
        """
        name = channel.encode()
        receivers = self._receivers.setdefault(name, [])
        receivers.append(receive)
        try:
            if confirmed:
                await self.listener.subscribe(name)
            else:
                await self._subscribe_soon(name)
            yield
        finally:
            receivers.remove(receive)
            if not receivers and self._receivers.get(name) is receivers:
                del self._receivers[name]
                self.listener.unsubscribe(name)

    async def _subscribe_soon(self, name: bytes) -> None:
        try:
            with trio.move_on_after(CONFIRMED_WITHIN):
                await self.listener.subscribe(name)
        except (LinkClosed, RedisError) as exc:
            logger.warning("channel %r cannot be subscribed: %s", name, exc)

    def _deliver(self, channel: bytes, payload: bytes) -> None:
        for receive in tuple(self._receivers.get(channel, ())):
            receive(payload)
