"""A registry without a server: DNS service discovery in the local network (mDNS, RFC 6762; DNS-SD, RFC 6763).

The library `zeroconf` runs an asyncio loop in its own thread. Its blocking calls are made in threads, and `open`
waits for the end of all of them.

Each transport of an instance is a service of the type `_a2a._tcp`. A TXT record is too small for an agent card, so
it has only name, version and the parts of the URL. The agent itself serves its card.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import trio

from ..abc import A2ATransportsProperties, AgentCard, AgentDirectory, AgentRegistry, RegisteredAgent
from ..errors import ConfigurationError, RegistryError
from ..protocol.text import describe_exception
from .card import name_of
from .watching import MAX_LISTED, Snapshots, Wakeup

if TYPE_CHECKING:
    from zeroconf import ServiceBrowser, ServiceInfo, Zeroconf

__all__ = ["DnsSdRegistry"]

T = TypeVar("T")

SERVICE = "_a2a._tcp.local."

MAX_TEXT = 240
"""Limit of one value in a TXT record, in bytes. The format permits 255 bytes for key and value."""

ANSWER_WITHIN = 1.5
"""Seconds to wait for the answer of an instance. It is enough for two lost packets."""

CHECKED_AT_ONCE = 8
"""Limit of the instances that are checked at the same time."""


@attrs.define
class _Service:
    """A service that was seen in the network."""

    info: ServiceInfo
    seen_at: float


class DnsSdRegistry(AgentRegistry, AgentDirectory):
    """Registers agents by DNS-SD, and finds them in the local network. It needs the extra `dns-sd`.

    Args:
        interfaces: addresses of the network interfaces to use; all by default.
        ttl: seconds after which an instance that does not answer any more is forgotten.
        settle: seconds for which the first `list` or `resolve` waits for answers. The network does not report when
            all have answered.

    Raises:
        ConfigurationError: the extra is not installed, or a duration cannot work.
    """

    def __init__(self, *, interfaces: Sequence[str] | None = None, ttl: float = 60.0, settle: float = 1.5) -> None:
        try:
            import zeroconf
        except ImportError as exc:
            raise ConfigurationError(
                "DnsSdRegistry needs a library that is not installed: pip install 'trio-agentapp[dns-sd]'"
            ) from exc
        if not 1 <= ttl <= 3600 or not 0 <= settle <= 60:
            raise ConfigurationError(
                f"DnsSdRegistry: ttl must be 1 to 3600 s and settle 0 to 60 s: {ttl!r}, {settle!r}"
            )
        self._library = zeroconf
        self._interfaces = None if interfaces is None else [*interfaces]
        self._ttl = ttl
        self._settle = settle
        self._instance = secrets.token_hex(6)
        self._threads = trio.CapacityLimiter(CHECKED_AT_ONCE + 2)
        self._zeroconf: Zeroconf | None = None
        self._browser: ServiceBrowser | None = None
        self._settled = 0.0
        self._starting = trio.Lock()
        self._own: list[ServiceInfo] = []
        self._services: dict[str, _Service] = {}
        self._wakeups: set[Wakeup] = set()

    def __repr__(self) -> str:
        return "DnsSdRegistry()"

    def registry_name(self) -> str:
        return "dns-sd"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take part in mDNS inside the block. Raises RegistryError if no interface can be used."""
        # Shielded: a cancellation after the library has started its thread would leave the thread running.
        with trio.CancelScope(shield=True):
            self._zeroconf = await self._in_thread(self._make)
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):  # it takes less than a second
                await self._in_thread(self._close)

    def _make(self) -> Zeroconf:
        """Start the library; called in a thread. It leaks a socket for an unknown interface: check them first."""
        if self._interfaces is None:
            return self._library.Zeroconf()
        from ifaddr import get_adapters  # the library's own way to find them

        known = {str(ip.ip) for adapter in get_adapters() for ip in adapter.ips}
        for interface in self._interfaces:
            if interface not in known:
                raise OSError(
                    f"no network interface has the address {interface}; there are {', '.join(sorted(known))}"
                )
        return self._library.Zeroconf(interfaces=self._interfaces)

    def _close(self) -> None:
        """Deregister, and join the threads of the library."""
        if self._browser is not None:
            self._browser.cancel()
        if self._zeroconf is not None:
            self._zeroconf.close()
        self._browser = self._zeroconf = None
        self._own.clear()
        self._services.clear()

    async def register(
        self, agent_card: AgentCard, a2a_transports_properties: Sequence[A2ATransportsProperties]
    ) -> None:
        if not a2a_transports_properties:
            raise ConfigurationError("DNS-SD registers the transports of an agent, and this agent has none")
        infos = [
            await self._info(agent_card, number, properties)
            for number, properties in enumerate(a2a_transports_properties)
        ]
        await self.deregister()
        for info in infos:
            self._own.append(info)
            await self._in_thread(self._served.register_service, info)

    async def deregister(self) -> None:
        while self._own:
            await self._in_thread(self._served.unregister_service, self._own[-1])
            self._own.pop()

    async def _info(self, agent_card: AgentCard, number: int, properties: A2ATransportsProperties) -> ServiceInfo:
        name = name_of(agent_card)
        text = {
            "name": name,
            "version": str(agent_card.get("version", "")),
            "instance": self._instance,
            "host": properties.host,
            "path": properties.path,
            "tls": str(properties.support_tls).lower(),
            "transport": properties.transport_type,
        }
        for key, value in text.items():
            if len(value.encode()) > MAX_TEXT:
                raise ConfigurationError(f"DNS-SD takes {MAX_TEXT} bytes for the {key} of an agent: {value!r:.80}")
        label = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in name)[:40]
        label = f"{label}-{self._instance}-{number}"
        return self._library.ServiceInfo(
            SERVICE,
            f"{label}.{SERVICE}",
            properties.port,
            properties=text,
            server=f"{label}.local.",
            host_ttl=int(self._ttl),
            other_ttl=int(self._ttl),
            parsed_addresses=await _addresses(properties.host),
        )

    async def list(self) -> Sequence[RegisteredAgent]:
        """Return the instances that have answered. At most `MAX_LISTED` services are kept."""
        await self._browse()
        await trio.sleep_until(self._settled)
        await self._check_old()
        return self._agents()

    async def resolve(self, name: str) -> Sequence[RegisteredAgent]:
        return [agent for agent in await self.list() if agent.name == name]

    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Sequence[RegisteredAgent]]]:
        """See AgentDirectory. Instances that have died are noticed within twice the `ttl`."""
        read = self.list if name is None else partial(self.resolve, name)
        wakeup = Wakeup()
        self._wakeups.add(wakeup)
        try:
            yield Snapshots(read, wakeup, poll=self._ttl / 2)
        finally:
            self._wakeups.discard(wakeup)

    async def _browse(self) -> None:
        """Start to browse for services, unless it has been started."""
        async with self._starting:
            if self._browser is None:
                token = trio.lowlevel.current_trio_token()

                def changed(*, zeroconf: Zeroconf, service_type: str, name: str, state_change: Any) -> None:
                    """Called by the library, in the thread of its browser."""
                    info = None
                    if state_change is not self._library.ServiceStateChange.Removed:
                        info = zeroconf.get_service_info(service_type, name, timeout=int(ANSWER_WITHIN * 1000))
                    token.run_sync_soon(self._learn, name, info)

                browse = partial(self._library.ServiceBrowser, self._served, SERVICE, handlers=[changed])
                with trio.CancelScope(shield=True):
                    self._browser = await self._in_thread(browse)
                self._settled = trio.current_time() + self._settle

    def _learn(self, name: str, info: ServiceInfo | None) -> None:
        if info is None:
            self._services.pop(name, None)
        elif name in self._services or len(self._services) < MAX_LISTED:
            self._services[name] = _Service(info, trio.current_time())
        for wakeup in self._wakeups:
            wakeup.wake()

    async def _check_old(self) -> None:
        """Check services whose last answer is older than `ttl`. mDNS itself would keep them for 20 minutes."""
        too_old = trio.current_time() - self._ttl
        old = [name for name, service in self._services.items() if service.seen_at < too_old]
        async with trio.open_nursery() as nursery:
            for name in old[:CHECKED_AT_ONCE]:
                nursery.start_soon(self._check, name)

    async def _check(self, name: str) -> None:
        ask = partial(self._served.get_service_info, SERVICE, name, timeout=int(ANSWER_WITHIN * 1000))
        self._learn(name, await self._in_thread(ask))

    def _agents(self) -> Sequence[RegisteredAgent]:
        instances: dict[str, list[tuple[dict[str, str], A2ATransportsProperties]]] = {}
        for service in self._services.values():
            if (read := _read(service.info)) is not None:
                instances.setdefault(read[0]["instance"], []).append(read)
        return [_agent_of(instance, services) for instance, services in instances.items()]

    @property
    def _served(self) -> Zeroconf:
        if self._zeroconf is None:
            raise RuntimeError("the registry is not open; use it inside `async with registry.open()`")
        return self._zeroconf

    async def _in_thread(self, call: Callable[..., T], *args: Any) -> T:
        try:
            return await trio.to_thread.run_sync(call, *args, limiter=self._threads)
        except (self._library.Error, OSError, TimeoutError) as exc:
            raise RegistryError(f"DNS-SD: {describe_exception(exc)}") from exc


async def _addresses(host: str) -> list[str]:
    try:
        return [str(ip_address(host))]
    except ValueError:
        pass
    try:
        found = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
    except OSError as exc:
        raise RegistryError(f"DNS-SD: the address of {host!r} is not known: {exc}") from exc
    return sorted({str(address[4][0]) for address in found})


def _read(info: ServiceInfo) -> tuple[dict[str, str], A2ATransportsProperties] | None:
    """Return the TXT record of a service and its transport; None if it is not an entry of this registry."""
    text = {key: value or "" for key, value in info.decoded_properties.items()}
    if not text.get("name") or not text.get("instance"):
        return None
    try:
        return text, A2ATransportsProperties(
            host=text.get("host", ""),
            port=info.port or 0,
            path=text.get("path", ""),
            support_tls=text.get("tls") == "true",
            transport_type=text.get("transport") or "JSONRPC",
        )
    except ConfigurationError:
        return None


def _agent_of(instance: str, services: Sequence[tuple[dict[str, str], A2ATransportsProperties]]) -> RegisteredAgent:
    text, transport = services[0]
    return RegisteredAgent(
        name=text["name"],
        instance_id=instance,
        agent_card={
            "name": text["name"],
            "version": text.get("version", ""),
            "url": transport.url,
            "preferredTransport": transport.transport_type,
        },
        transports=[transport for _, transport in services],
        card_is_whole=False,
    )
