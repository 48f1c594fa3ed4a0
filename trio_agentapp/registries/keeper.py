"""Registers an app in its registries when it is ready, renews the registrations, and removes them before the drain.

Each registry has its own task, so a registry that fails or hangs delays neither the app nor the other registries.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import attrs
import orjson
import trio

from ..abc import A2ATransportsProperties, AgentCard, AgentRegistry
from ..errors import AgentAppError, ConfigurationError
from ..nursery import nursery_around
from ..protocol.text import describe_exception, escaped, safe_text
from ..redis import Backoff
from .card import json_of, name_of
from .foreign import as_registry, listed

__all__ = ["Keeper", "RegistryStatus", "keeping"]

logger = logging.getLogger("trio_agentapp.registries")

CALL_TIMEOUT = 10.0
"""Seconds for one call of a registry. DNS-SD needs 2, since it first asks the network whether a name is free."""

WITHDRAW_WITHIN = 5.0
"""Seconds for the deregistration, which delays the drain. Registrations that remain expire by themselves."""

BACKOFF = Backoff(first=0.5, last=30.0)
"""Pauses between attempts: short at first, for a registry that restarts; long for one that is down for hours."""

MAX_ERROR = 500
"""Limit of characters of an error that are kept."""

State = Literal["waiting", "registered", "retrying", "deregistered"]


@attrs.frozen(kw_only=True)
class RegistryStatus:
    """The state of the registration in one registry."""

    registry: str
    """The `registry_name()` of the registry."""
    state: State
    """`waiting` until the first call is answered, after the app is ready; `retrying` after a failure."""
    since: float
    """Time at which this state began, in seconds since 1970."""
    failures: int = 0
    """Failed calls in a row."""
    error: str | None = None
    """The last error. It is kept after a success, for the operator."""


class Keeper:
    """The registrations of one app. `keeping` makes it."""

    def __init__(self, registrations: Sequence[_Registration], withdraw_within: float) -> None:
        self._registrations = registrations
        self._withdraw_within = withdraw_within

    def announce(self, transports: Sequence[A2ATransportsProperties] | None = None) -> None:
        """Register the app in the background. Call it when the app is ready; a second call does nothing.

        `transports` replaces those given to `keeping`, for an app whose port is known only when it listens.
        """
        for registration in self._registrations:
            if transports is not None and not registration.announced.is_set():
                registration.transports = tuple(transports)
            registration.announced.set()

    async def withdraw(self) -> None:
        """Deregister the app everywhere, within `withdraw_within` seconds. A second call waits for the first.

        Call it before the drain, so that other agents do not begin calls that would be refused. Errors of
        registries are not raised; `statuses` has them.
        """
        for registration in self._registrations:
            registration.leave(self._withdraw_within)
        for registration in self._registrations:
            await registration.ended.wait()

    def statuses(self) -> Sequence[RegistryStatus]:
        """Return the status of each registry, in the order in which they were given."""
        return [registration.status for registration in self._registrations]


@asynccontextmanager
async def keeping(
    agent_card: AgentCard,
    transports: Sequence[A2ATransportsProperties],
    registries: object,
    *,
    withdraw_within: float = WITHDRAW_WITHIN,
    call_timeout: float = CALL_TIMEOUT,
    backoff: Backoff = BACKOFF,
) -> AsyncIterator[Keeper]:
    """Keep an app registered inside the block. `keeper.announce()` starts the registrations.

        transports = [A2ATransportsProperties("10.0.0.7", 8080, "/a2a")]
        async with keeping(card, transports, [RedisRegistry(url)]) as keeper:
            keeper.announce()
            ...                        # serve
            await keeper.withdraw()    # before the drain; the end of the block does it, too

    If the block is cancelled or fails, the app is deregistered as well, within `withdraw_within` seconds.

    Args:
        registries: one registry or a list of them. See `AgentRegistry`; sync methods are called in a thread.
        withdraw_within, call_timeout: in seconds; for all deregistrations together, and for one call.

    Raises:
        ConfigurationError: the card has no name or cannot be written as JSON, an object is not a registry, or
            there are too many.
    """
    name_of(agent_card)
    card = json_of(agent_card)
    found = [as_registry(registry) for registry in listed(registries)]
    registrations = [_Registration(registry, card, tuple(transports), call_timeout, backoff) for registry in found]
    keeper = Keeper(registrations, withdraw_within)
    async with nursery_around() as nursery:
        for registration in registrations:
            nursery.start_soon(registration.run, name=f"registry {registration.status.registry}")
        try:
            yield keeper
        finally:
            with trio.CancelScope(shield=True):  # it ends within `withdraw_within`
                await keeper.withdraw()


class _Registration:
    """The task of one registry, from the start of the app to its end."""

    def __init__(
        self,
        registry: AgentRegistry,
        card: bytes,
        transports: Sequence[A2ATransportsProperties],
        call_timeout: float,
        backoff: Backoff,
    ) -> None:
        self.status = RegistryStatus(registry=registry.registry_name(), state="waiting", since=time.time())
        self.announced = trio.Event()
        self.ended = trio.Event()
        every = registry.renew_every
        if every is not None and not every > 0:
            raise ConfigurationError(
                f"registry {self.status.registry}: renew_every must be None, or seconds above 0, not {every!r}"
            )
        self._registry = registry
        self._renew_every = every
        self._card = card
        self._name = name_of(orjson.loads(card))
        self.transports = transports
        self._call_timeout = call_timeout
        self._backoff = backoff
        self._attempted = False
        """Whether a call may have registered the app. Its answer may have been lost."""
        self._leaving = False
        self._logged: type[BaseException] | None = None
        # `leave` ends this task, not the caller's scope, because the deregistration needs the open registry.
        self._life = trio.CancelScope(shield=True)
        self._work = trio.CancelScope()

    def leave(self, within: float) -> None:
        """Begin the deregistration, and end the task within `within` seconds."""
        if not self._leaving:
            self._leaving = True
            self._life.deadline = trio.current_time() + (within if self._attempted else 0)
            self._work.cancel(reason="the app is shutting down")

    async def run(self) -> None:
        """Wait until the app is ready, register it, and keep it registered until `leave`."""
        try:
            with self._life:
                await self._until_leaving(self.announced.wait)
                while not self._leaving:
                    await self._open_and_keep()
                    await self._until_leaving(partial(trio.sleep, self._backoff.delay(self.status.failures - 1)))
            if self._life.cancelled_caught and self._attempted and self.status.state != "deregistered":
                logger.warning(
                    "%s: the agent was not deregistered in time; its registration expires by itself",
                    self.status.registry,
                )
        finally:
            self.ended.set()

    async def _until_leaving(self, work: Callable[[], Awaitable[object]]) -> None:
        with trio.CancelScope() as self._work:
            if not self._leaving:
                await work()

    async def _open_and_keep(self) -> None:
        """Register, and renew until `leave`; then deregister. Returns also if the registry cannot be opened."""
        try:
            async with self._registry.open():
                await self._until_leaving(self._keep)
                if self._attempted:
                    await self._deregister()
        except (Exception, SystemExit) as exc:
            self._failed(exc)

    async def _keep(self) -> None:
        while True:
            try:
                self._attempted = True
                # Each call gets a new copy of the card, because a user's registry may change it.
                await self._call(self._registry.register, orjson.loads(self._card), self.transports)
                while True:
                    self._succeeded()
                    await self._wait_due()
                    await self._call(self._registry.renew)
            except (Exception, SystemExit) as exc:
                self._failed(exc)
            await trio.sleep(self._backoff.delay(self.status.failures - 1))

    async def _wait_due(self) -> None:
        if self._renew_every is None:
            await trio.sleep_forever()
        await trio.sleep(self._renew_every * random.uniform(0.8, 1))  # noqa: S311  spreads load, protects nothing

    async def _call(self, method: Callable[..., Awaitable[object]], *args: object) -> None:
        with trio.move_on_after(self._call_timeout) as scope:
            await method(*args)
        if scope.cancelled_caught:
            raise trio.TooSlowError(f"no answer within {self._call_timeout:g} s")

    async def _deregister(self) -> None:
        await self._registry.deregister()
        self._become("deregistered")
        logger.info("%s: the agent %r is deregistered", self.status.registry, self._name)

    def _succeeded(self) -> None:
        if self.status.state != "registered":
            self._become("registered")
            self._logged = None
            logger.info("%s: the agent %r is registered", self.status.registry, self._name)

    def _failed(self, error: BaseException) -> None:
        """Record a failure. It is logged only if the type of the error is new, and not at each attempt."""
        known = isinstance(error, (AgentAppError, trio.TooSlowError, OSError))
        text = escaped(safe_text(error) if known else describe_exception(error))[:MAX_ERROR]
        if self.status.state != "retrying":
            self._become("retrying")
        self.status = attrs.evolve(self.status, failures=self.status.failures + 1, error=text)
        if self._logged is not type(error):
            self._logged = type(error)
            verb = "deregistered" if self._leaving else "registered"
            logger.warning(
                "%s: the agent %r is not %s: %s",
                self.status.registry,
                self._name,
                verb,
                text,
                exc_info=None if known else error,
            )

    def _become(self, state: State) -> None:
        self.status = attrs.evolve(self.status, state=state, since=time.time(), failures=0)
