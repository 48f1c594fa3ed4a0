"""States and histories in Redis, for all nodes of an app."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import files
from typing import Any

import trio
from redis.exceptions import RedisError

from ..errors import BackendUnavailable, ConfigurationError
from ..protocol.ids import SessionKey
from ..protocol.keys import Layout
from ..redis import Command, LinkError, RedisClient, RedisURL, Script, ScriptCall, is_full
from .record import stale
from .shelf import FORGET_AFTER, Shelf
from .turns import MAX_HISTORY_BYTES, MAX_MESSAGES, Turn

__all__ = ["RedisPlace"]

logger = logging.getLogger("trio_agentapp.stores")

START_TIMEOUT = 10.0
"""Seconds after which a start gives up on a server that does not answer."""

CALL_TIMEOUT = 3.0
"""Seconds for one call. A large state on a slow network takes longer than a heartbeat."""

RETRY_FOR = 5.0
"""Seconds for which a call is repeated. A restart of Redis takes less."""

RETRY = 0.2
"""Seconds between two attempts."""


class RedisPlace:
    """One server, over one connection, for any number of sessions.

    Data do not expire: the operator decides how long chats are kept.

    Raises:
        ConfigurationError: a URL or prefix that cannot work.
    """

    def __init__(self, url: str, *, prefix: str) -> None:
        self._layout = Layout(prefix)
        try:
            self._url = RedisURL.parse(url)
        except ConfigurationError as error:
            raise ConfigurationError(f"state_url: {error}") from error
        self._client: RedisClient | None = None

    def shelf(self, name: str) -> Shelf:
        return RedisShelf(self, self._layout, name)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connect.

        Raises BackendUnavailable: no answer. ConfigurationError: the log-in is refused, or keys may be evicted.
        """
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(
                    RedisClient.open(self._url, call_timeout=CALL_TIMEOUT, start_timeout=START_TIMEOUT)
                )
                await _check(client)
            except LinkError as error:
                raise BackendUnavailable(f"state_url: {error}") from error
            except RedisError as error:
                raise ConfigurationError(f"state_url: {error}") from error
            self._client = client
            try:
                yield
            finally:
                self._client = None

    async def ask(self, call: Command | ScriptCall, verb: str) -> Any:
        """Return the answer to a call, which may be sent several times."""
        if self._client is None:
            raise RuntimeError("the stores are not open; they are while the app runs")
        give_up_at = trio.current_time() + RETRY_FOR
        while True:
            left = give_up_at - trio.current_time()
            try:
                [answer] = await self._client.pipeline([call], timeout=min(CALL_TIMEOUT, left))
                if isinstance(answer, RedisError):
                    raise answer
            except (LinkError, RedisError) as error:
                if is_full(error) or trio.current_time() + RETRY >= give_up_at:
                    logger.warning("Redis at %s: %s", self._url, error)
                    raise BackendUnavailable(f"The state could not be {verb}.", retry_after=1.0) from error
            else:
                return answer
            await trio.sleep(RETRY)


async def _check(client: RedisClient) -> None:
    memory = await client.call("INFO", "memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        raise ConfigurationError(
            f"state_url: this Redis evicts keys when it is full (maxmemory-policy {policy}), so states are lost; "
            "set maxmemory-policy to noeviction, or use another server"
        )


class RedisShelf(Shelf):
    def __init__(self, place: RedisPlace, layout: Layout, name: str) -> None:
        folder = files(__package__) / "lua"
        prelude = (folder / "_prelude.lua").read_text()
        self._place = place
        self._layout = layout
        self._name = name
        self._write, self._undo, self._add = (
            Script(prelude + (folder / f"{script}.lua").read_text()) for script in ("write", "undo", "add")
        )

    async def read(self, key: SessionKey) -> bytes | None:
        value: bytes | None = await self._place.ask(("HGET", self._keys(key)[0], "v"), "read")
        return value

    async def write(self, key: SessionKey, value: bytes | None, token: int | None) -> bool:
        return await self._run(self._write, key, token, *(() if value is None else (value,)))

    async def undo(self, key: SessionKey, undone: int, token: int | None) -> bool:
        return await self._run(self._undo, key, token, str(undone))

    async def add(self, key: SessionKey, turn: Turn) -> None:
        bounds = (MAX_MESSAGES, MAX_HISTORY_BYTES)
        await self._run(self._add, key, turn.token, turn.count, turn.messages, turn.run_id, *bounds)

    async def turns(self, key: SessionKey, limit: int | None) -> Sequence[bytes]:
        if limit == 0:
            await trio.lowlevel.checkpoint()
            return []
        messages = self._keys(key)[2]
        turns: list[bytes] = await self._place.ask(("LRANGE", messages, -(limit or 0), -1), "read")
        return turns

    def _keys(self, key: SessionKey) -> tuple[str, str, str]:
        base = f"{self._layout.base(key.digest)}{self._name}"
        return base, f"{base}:turns", f"{base}:messages"

    async def _run(self, script: Script, key: SessionKey, token: int | None, *args: str | int | bytes) -> bool:
        # All attempts of this call have the same nonce.
        fixed = (secrets.token_hex(8), "" if token is None else str(token), int(FORGET_AFTER * 1000))
        verdict, value = await self._place.ask(script.bind(self._keys(key), (*fixed, *args)), "kept")
        if verdict == b"STALE":
            raise stale(token or 0, int(value))
        return bool(value == b"1")
