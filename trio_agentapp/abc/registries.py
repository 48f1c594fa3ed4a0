"""The contracts of registries of agents: an agent is registered by its card, and found by its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeAlias

import attrs
import trio

from ..errors import ConfigurationError

__all__ = ["A2ATransportsProperties", "AgentCard", "AgentDirectory", "AgentRegistry", "RegisteredAgent"]

AgentCard: TypeAlias = Mapping[str, Any]
"""The JSON object of an agent card of A2A 1.0 or 0.3. It has a `name`."""

MAX_PORT = 65535


@attrs.frozen
class A2ATransportsProperties:
    """The address at which other programs reach one transport of an agent.

    Args:
        host: a name or an IP address, without brackets.
        port: 1 to 65535.
        path: the path of the URL, such as `/a2a`.
        support_tls: whether the URL begins with `https`.
        extra: further text for the registry. Each registry defines what it does with it.
        transport_type: `JSONRPC`, `HTTP+JSON` or `GRPC`.

    Raises:
        ConfigurationError: no host, or an impossible port.
    """

    host: str = attrs.field()
    port: int = attrs.field()
    path: str = ""
    support_tls: bool = False
    extra: Mapping[str, Any] = attrs.field(factory=dict)
    transport_type: str = "JSONRPC"

    @host.validator
    def _has_host(self, _attribute: object, value: object) -> None:
        if not isinstance(value, str) or not value.strip():
            raise ConfigurationError(f"A2ATransportsProperties: host must be a name or an address, not {value!r}")
        if value in ("0.0.0.0", "::"):  # noqa: S104  it is refused
            raise ConfigurationError(
                f"A2ATransportsProperties: {value} reaches no host; give the address at which others reach this app"
            )

    @port.validator
    def _has_port(self, _attribute: object, value: object) -> None:
        if not isinstance(value, int) or not 0 < value <= MAX_PORT:
            raise ConfigurationError(f"A2ATransportsProperties: port must be 1 to {MAX_PORT}, not {value!r}")

    @property
    def url(self) -> str:
        """The URL of this transport."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = self.path if not self.path or self.path.startswith("/") else f"/{self.path}"
        return f"{'https' if self.support_tls else 'http'}://{host}:{self.port}{path}"


@attrs.frozen(kw_only=True)
class RegisteredAgent:
    """One live instance of an agent, as a registry knows it."""

    name: str
    instance_id: str
    """Identifies the instance among those of the same name. Its format depends on the registry."""
    agent_card: AgentCard
    """The card; only its beginning (name, version, url) if `card_is_whole` is false."""
    transports: Sequence[A2ATransportsProperties]
    card_is_whole: bool = True
    """False for registries without room for a card. The agent itself serves the whole card."""

    @property
    def url(self) -> str:
        """The URL of the first transport; without one, that of the card, or an empty text."""
        return self.transports[0].url if self.transports else str(self.agent_card.get("url") or "")


class AgentRegistry(ABC):
    """Registers one instance of an agent. Each instance of an app has its own object.

    The runtime calls the methods inside `open()`, one at a time, each with a time limit. After a failure, also
    after one whose outcome is not known, it calls `register` again. So every method may be called any number of
    times.

    A registry that is not async may define its methods without `async`. They are called in a thread.
    """

    @property
    def renew_every(self) -> float | None:
        """Seconds between two calls of `renew`; None: the registration stays until `deregister`."""
        return None

    @abstractmethod
    def registry_name(self) -> str:
        """Return a short name for logs and states, such as `redis`."""

    def open(self) -> AbstractAsyncContextManager[object]:
        """Return a block in which the other methods may be called, with connections open inside.

        By default it does nothing. It need not wait until the registry can be reached.
        """
        return nullcontext()

    @abstractmethod
    async def register(
        self, agent_card: AgentCard, a2a_transports_properties: Sequence[A2ATransportsProperties]
    ) -> None:
        """Register this instance, or replace its registration.

        Raises:
            RegistryError: the registry cannot be reached, or refuses.
            ConfigurationError: this registry cannot keep the card.
        """

    async def renew(self) -> None:
        """Keep the registration alive. Raises RegistryError, also if it has expired; then `register` is called."""
        await trio.lowlevel.checkpoint()

    async def deregister(self) -> None:
        """Remove the registration of this instance, and of no other one. Nothing happens if there is none.

        Raises:
            RegistryError: the registry cannot be reached, or refuses.
        """
        await trio.lowlevel.checkpoint()


class AgentDirectory(ABC):
    """An optional part of a registry: it finds agents. A registry names it as a further base class.

        class MyRegistry(AgentRegistry, AgentDirectory): ...

    The methods may be called inside `open()`. They raise RegistryError if the registry cannot be reached.
    """

    @abstractmethod
    async def list(self) -> Sequence[RegisteredAgent]:
        """Return all live instances of all agents. A registry defines a maximum."""

    @abstractmethod
    async def resolve(self, name: str) -> Sequence[RegisteredAgent]:
        """Return the live instances of the agent `name`, in no particular order; none if it is unknown."""

    @abstractmethod
    def watch(
        self, name: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[RegisteredAgent]]]:
        """Follow the instances of the agent `name`, or of all agents.

            async with registry.watch("Friday") as changes:
                async for agents in changes: ...

        Each item holds all live instances: first the present ones, then again after each change. A slow reader gets
        the latest state only. While the registry cannot be reached there are no items.
        """
