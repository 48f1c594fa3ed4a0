"""A user's own registry: methods may be sync, and it need not be a subclass of `AgentRegistry`."""

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
"""Registries of one app. Each has a task, and connections of its own."""


def listed(registries: object) -> Sequence[object]:
    """Return one registry, or several, as a list. Raises ConfigurationError: there are too many."""
    if registries is None:
        return []
    found = list(registries) if isinstance(registries, (list, tuple, set, frozenset)) else [registries]
    if len(found) > MAX_REGISTRIES:
        raise ConfigurationError(f"registry: an app takes {MAX_REGISTRIES} registries at most, not {len(found)}")
    return found


def as_registry(registry: object) -> AgentRegistry:
    """Return `registry` if its methods are async; otherwise one that calls it in a thread.

    Raises:
        ConfigurationError: it is no registry; the message names the method that is missing.
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

    A call that exceeds its time limit goes on in its thread: Python cannot end a thread. There is one thread at
    most, since the next call waits for it.
    """

    def __init__(self, registry: Any) -> None:
        self.registry = registry
        self._one_thread = trio.CapacityLimiter(1)

    def __repr__(self) -> str:
        return repr(self.registry)

    @property
    def renew_every(self) -> float | None:
        """The object's own `renew_every`."""
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
