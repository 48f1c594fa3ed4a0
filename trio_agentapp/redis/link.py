"""Both connections of a process to one server, shared by all that work with it."""

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

__all__ = ["Hear", "RedisLink"]

logger = logging.getLogger("trio_agentapp.redis")

Hear = Callable[[bytes], object]

CONFIRMED_WITHIN = 1.0
"""Seconds that a new subscription is waited for. Wake-ups only shorten waiting: without one, callers poll."""


class RedisLink:
    """One connection for commands, one that listens, whatever the number of runs and readers.

    Whoever owns it serves it; all others use `client`, `ask` and `hearing` meanwhile. It may be served again.
    """

    def __init__(
        self, url: RedisURL, *, credential_provider: CredentialProvider | None = None, call_timeout: float
    ) -> None:
        self.url = url
        self._credentials = credential_provider
        self._call_timeout = call_timeout
        self._hearers: dict[bytes, list[Hear]] = {}
        self.on_gap: list[Callable[[], object]] = []
        """Called whenever messages may have been missed; synchronous."""
        self.client: RedisClient
        self.listener: RedisListener
        self.renew()

    def renew(self) -> None:
        """Make clients that have not been served: each is so once."""
        self.client = RedisClient(self.url, credential_provider=self._credentials, call_timeout=self._call_timeout)
        self.listener = RedisListener(self.url, credential_provider=self._credentials)

    @asynccontextmanager
    async def serving(self, check: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Connect for the length of the block; `check` is called once the first connection can be used."""

        async def listen(*, task_status: trio.TaskStatus[None]) -> None:
            await self.listener.listen(deliver=self._hear, on_gap=self.tell_gap, task_status=task_status)

        async with serving_in_background(self.client.serve):
            await check()
            async with serving_in_background(listen):
                yield

    def tell_gap(self) -> None:
        for tell in self.on_gap:
            tell()

    async def ask(self, *calls: ScriptCall | Command, only_on: str | None = None) -> Any:
        """The answers of one round trip; the first refusal is raised."""
        replies = await self.client.pipeline(calls, only_on=only_on)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        return replies

    @asynccontextmanager
    async def hearing(self, channel: str, hear: Hear, *, surely: bool = False) -> AsyncIterator[None]:
        """Hear what is published in `channel` inside this block.

        `surely`: enter it only when the server has confirmed that, and fail as the server does. Otherwise it is
        waited for a second, since who hears nothing polls anyway.
        """
        name = channel.encode()
        hearers = self._hearers.setdefault(name, [])
        hearers.append(hear)
        try:
            if surely:
                await self.listener.subscribe(name)
            else:
                await self._subscribe_soon(name)
            yield
        finally:
            hearers.remove(hear)
            if not hearers and self._hearers.get(name) is hearers:
                del self._hearers[name]
                self.listener.unsubscribe(name)

    async def _subscribe_soon(self, name: bytes) -> None:
        try:
            with trio.move_on_after(CONFIRMED_WITHIN):
                await self.listener.subscribe(name)
        except (LinkClosed, RedisError) as exc:
            logger.warning("channel %r cannot be heard: %s", name, exc)

    def _hear(self, channel: bytes, payload: bytes) -> None:
        for hear in tuple(self._hearers.get(channel, ())):
            hear(payload)
