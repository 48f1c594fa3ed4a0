"""Wraps a user's own registry. Its methods may be sync, and it need not be a subclass of `AgentRegistry`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from inspect import isawaitable, iscoroutinefunction
from typing import Any

import trio

from ..abc import A2ATransportsProperties, AgentCard, AgentRegistry
from ..errors import ConfigurationError

__all__ = ["ForeignRegistry", "as_registry", "listed"]

MAX_REGISTRIES = 16
"""Limit of the registries of one app. Each has its own task and connections."""


def listed(registries: object) -> Sequence[object]:
    """Return one registry, or several, as a list. Raises ConfigurationError if there are too many."""
    if registries is None:
        return []
    found = list(registries) if isinstance(registries, (list, tuple, set, frozenset)) else [registries]
    if len(found) > MAX_REGISTRIES:
        raise ConfigurationError(f"registry: an app takes {MAX_REGISTRIES} registries at most, not {len(found)}")
    return found


def as_registry(registry: object) -> AgentRegistry:
    """Return `registry` if its methods are async; otherwise a wrapper that calls them in a thread.

    Raises:
        ConfigurationError: the object is not a registry; the message names the missing method.
    """
    if isinstance(registry, AgentRegistry) and all(
        iscoroutinefunction(method) for method in (registry.register, registry.renew, registry.deregister)
    ):
        return registry
    for name in ("registry_name", "register"):
        if isinstance(registry, type) or not callable(getattr(registry, name, None)):
            raise ConfigurationError(
                f"registry: {registry!r} is no registry, it has no method {name}(); give an instance of "
                "RedisRegistry, NacosRegistry, DnsSdRegistry, or of a subclass of AgentRegistry"
            )
    return ForeignRegistry(registry)


class ForeignRegistry(AgentRegistry):
    """Calls methods of a user's `registry` that are not async in a thread. `deregister` and `renew` may be missing.

    A call that exceeds its time limit continues in its thread, because Python cannot end a thread. The next call
    waits for it, so there is one thread at most.
    """

    def __init__(self, registry: Any) -> None:
        self.registry = registry
        self._one_thread = trio.CapacityLimiter(1)

    def __repr__(self) -> str:
        return repr(self.registry)

    @property
    def renew_every(self) -> float | None:
        """The `renew_every` of the wrapped registry."""
        return getattr(self.registry, "renew_every", None)

    def open(self) -> AbstractAsyncContextManager[object]:
        return self.registry.open() if isinstance(self.registry, AgentRegistry) else nullcontext()

    def registry_name(self) -> str:
        return str(self.registry.registry_name())

    async def register(
        self, agent_card: AgentCard, a2a_transports_properties: Sequence[A2ATransportsProperties]
    ) -> None:
        await self._call(self.registry.register, agent_card, [*a2a_transports_properties])

    async def renew(self) -> None:
        await self._call(getattr(self.registry, "renew", None))

    async def deregister(self) -> None:
        await self._call(getattr(self.registry, "deregister", None))

    async def _call(self, method: Callable[..., Any] | None, *args: object) -> None:
        if method is None:
            await trio.lowlevel.checkpoint()
        elif iscoroutinefunction(method):
            await method(*args)
        else:
            answer = await trio.to_thread.run_sync(method, *args, abandon_on_cancel=True, limiter=self._one_thread)
            if isawaitable(answer):
                await answer
