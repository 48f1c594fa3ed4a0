"""A registry in Redis: a key for each instance, which expires unless it is renewed.

Keys, all in one slot of a cluster (P is the prefix, D the digest of the agent's name, I the instance):

    P:{agents}:D:I    JSON of one instance; expires after `ttl`
    P:{agents}        sorted set of all "D:I", in order of their text, so that the instances of a name are a range
    P:{agents}:c      channel: an instance was registered or deregistered

An instance that dies leaves its member in the sorted set. The next reader that does not find its key removes it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import attrs
import orjson
import trio
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from ..abc import A2ATransportsProperties, AgentCard, AgentDirectory, AgentRegistry, RegisteredAgent
from ..errors import ConfigurationError, RegistryError
from ..protocol.ids import digest_of
from ..protocol.keys import Layout
from ..redis import Command, LinkError, RedisClient, RedisListener, RedisURL, Script
from ..redis.serving import serving_in_background
from .card import json_of, name_of
from .watching import MAX_LISTED, Snapshots, Wakeup

__all__ = ["RedisRegistry"]

logger = logging.getLogger("trio_agentapp.registries")

MAX_ENTRY_BYTES = 256 * 1024
"""Limit of one instance in bytes of JSON. A card with 100 skills has 50,000."""

CALL_TIMEOUT = 3.0
"""Seconds for one call, including the wait for a connection."""

READ_AT_ONCE = 500
"""Number of instances that are read in one round trip: usually 1 MB, and 128 MB with the largest cards."""

MAX_STRANGE = 100
"""Limit of invalid entries that are logged."""

POLL = 5.0
"""Seconds between two reads while watching. Other changes are signalled; only a death is found by reading."""

FORGET = Script(
    """
for i, member in ipairs(ARGV) do
  if redis.call('EXISTS', KEYS[i + 1]) == 0 then redis.call('ZREM', KEYS[1], member) end
end
"""
)
"""Removes members whose key does not exist. It is atomic: an instance may register again at the same time."""


class RedisRegistry(AgentRegistry, AgentDirectory):
    """Registers agents in Redis, and finds them there.

    Args:
        url: `redis://`, `rediss://`, `unix://` or `redis+sentinel://`.
        prefix: of all keys. Agents with different prefixes do not find each other.
        ttl: seconds after which an instance that has died is removed. It is renewed every `ttl / 3` seconds.

    Raises:
        ConfigurationError: the URL, the prefix or `ttl` is wrong.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "agentapp",
        ttl: float = 30.0,
        credential_provider: CredentialProvider | None = None,
    ) -> None:
        if not 0.1 <= ttl <= 86400:
            raise ConfigurationError(f"RedisRegistry: ttl must be 0.1 to 86400 seconds, not {ttl!r}")
        self._url = RedisURL.parse(url)
        self._index = f"{Layout(prefix).prefix}:{{agents}}"
        self._ttl = ttl
        self._credentials = credential_provider
        self._instance = secrets.token_hex(8)
        self._client: RedisClient | None = None
        self._entry: tuple[str, bytes] | None = None
        """The member of this instance and its JSON, once it has been registered."""
        self._strange: set[str] = set()

    def __repr__(self) -> str:
        return f"RedisRegistry({str(self._url)!r})"

    @property
    def renew_every(self) -> float:
        """A third of `ttl`, in seconds, so two renewals in a row may fail."""
        return self._ttl / 3

    def registry_name(self) -> str:
        return "redis"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Keep a connection inside the block. It is opened in the background, and reopened when it is lost."""
        client = RedisClient(
            self._url, credential_provider=self._credentials, call_timeout=CALL_TIMEOUT, start_timeout=None
        )
        async with serving_in_background(client.serve):
            self._client = client
            try:
                yield
            finally:
                self._client = None

    async def register(
        self, agent_card: AgentCard, a2a_transports_properties: Sequence[A2ATransportsProperties]
    ) -> None:
        name = name_of(agent_card)
        transports = [attrs.asdict(properties) for properties in a2a_transports_properties]
        card = orjson.Fragment(json_of(agent_card))
        entry = orjson.dumps({"name": name, "card": card, "transports": transports})
        if len(entry) > MAX_ENTRY_BYTES:
            raise ConfigurationError(
                f"the card of {name!r} has {len(entry):,} bytes as JSON; RedisRegistry takes {MAX_ENTRY_BYTES:,}"
            )
        self._entry = f"{digest_of(name)}:{self._instance}", entry
        await self._write("PUBLISH", self._channel, self._instance)

    async def renew(self) -> None:
        """Write the entry again, because Redis may have lost it."""
        await self._write("PING")

    async def _write(self, *then: str) -> None:
        if self._entry is not None:
            member, entry = self._entry
            await self._ask(
                ("SET", f"{self._index}:{member}", entry, "PX", int(self._ttl * 1000)),
                ("ZADD", self._index, 0, member),
                then,
            )

    async def deregister(self) -> None:
        if self._entry is not None:
            member, _ = self._entry
            await self._ask(
                ("DEL", f"{self._index}:{member}"),
                ("ZREM", self._index, member),
                ("PUBLISH", self._channel, self._instance),
            )
            self._entry = None

    async def list(self) -> Sequence[RegisteredAgent]:
        """Return the live instances; the first `MAX_LISTED` if there are more."""
        return await self._read("-", "+")

    async def resolve(self, name: str) -> Sequence[RegisteredAgent]:
        digest = digest_of(name)
        return [agent for agent in await self._read(f"[{digest}:", f"({digest};") if agent.name == name]

    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Sequence[RegisteredAgent]]]:
        """See AgentDirectory. It needs a second connection. Raises RegistryError if there is none within 10 s."""
        wakeup = Wakeup()
        listener = RedisListener(self._url, credential_provider=self._credentials)
        read = self.list if name is None else partial(self.resolve, name)

        async def listen(*, task_status: trio.TaskStatus[None]) -> None:
            with self._translating():
                await listener.listen(deliver=wakeup.wake, on_gap=wakeup.wake, task_status=task_status)

        async with serving_in_background(listen):
            with self._translating():
                await listener.subscribe(self._channel)
            yield Snapshots(read, wakeup, poll=min(POLL, self._ttl / 3))

    @property
    def _channel(self) -> str:
        return f"{self._index}:c"

    async def _read(self, first: str, last: str) -> Sequence[RegisteredAgent]:
        found: dict[str, RegisteredAgent] = {}
        while len(found) < MAX_LISTED:
            room = min(READ_AT_ONCE, MAX_LISTED - len(found))
            [raw] = await self._ask(("ZRANGEBYLEX", self._index, first, last, "LIMIT", 0, room))
            members = [member.decode() for member in raw]
            if not members:
                break
            keys = [f"{self._index}:{member}" for member in members]
            [entries] = await self._ask(("MGET", *keys))
            for member, entry in zip(members, entries, strict=True):
                if entry is not None and (agent := self._agent_of(member, entry)) is not None:
                    found[member] = agent
            await self._forget([member for member, entry in zip(members, entries, strict=True) if entry is None])
            first = f"({members[-1]}"
        return [*found.values()]

    def _agent_of(self, member: str, entry: bytes) -> RegisteredAgent | None:
        """Read an entry. An invalid one is logged and gives None, because it must not hide all others."""
        try:
            return _agent_of(member, entry)
        except (ValueError, TypeError, KeyError) as exc:
            if member not in self._strange and len(self._strange) < MAX_STRANGE:
                self._strange.add(member)
                logger.warning("the entry %r in Redis is not the entry of an agent: %r", member, exc)
            return None

    async def _forget(self, members: Sequence[str]) -> None:
        if members:
            keys = [self._index, *(f"{self._index}:{member}" for member in members)]
            with self._translating():
                await self._served.script(FORGET, keys, members)

    async def _ask(self, *commands: Command) -> Sequence[Any]:
        with self._translating():
            replies = await self._served.pipeline(commands)
            for reply in replies:
                if isinstance(reply, RedisError):
                    raise reply
        return replies

    @property
    def _served(self) -> RedisClient:
        if self._client is None:
            raise RuntimeError("the registry is not open; use it inside `async with registry.open()`")
        return self._client

    @contextmanager
    def _translating(self) -> Iterator[None]:
        """Turn errors of the link, and refusals of the server, into RegistryError."""
        try:
            yield
        except LinkError as exc:
            raise RegistryError(str(exc)) from exc
        except RedisError as exc:
            raise RegistryError(f"Redis at {self._url} refuses: {exc}") from exc


def _agent_of(member: str, entry: bytes) -> RegisteredAgent:
    """Read an entry. Fields that a newer version has added are left out.

    Raises:
        ValueError, TypeError, KeyError: the entry is not valid.
    """
    value = orjson.loads(entry)
    if not isinstance(value["name"], str) or not isinstance(value["card"], dict):
        raise TypeError("name or card has the wrong type")
    known = [field.name for field in attrs.fields(A2ATransportsProperties)]
    return RegisteredAgent(
        name=value["name"],
        instance_id=member,
        agent_card=value["card"],
        transports=[
            A2ATransportsProperties(**{key: properties[key] for key in known if key in properties})
            for properties in value["transports"]
        ],
    )
