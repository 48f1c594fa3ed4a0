"""Follows the instances of an agent. It reads them when it is woken, and at regular intervals."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

import trio

from ..abc import RegisteredAgent
from ..errors import RegistryError

__all__ = ["MAX_LISTED", "Snapshots", "Wakeup"]

logger = logging.getLogger("trio_agentapp.registries")

MAX_LISTED = 10_000
"""Limit of the instances that one call returns. It is far more than a system has agents."""

PAUSE = 0.1
"""Minimum of seconds between two reads, so that many changes at once cause one read."""


class Wakeup:
    """Wakes one waiting task. A wake-up is kept until the task waits."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def wake(self, *_: object) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Wait for a wake-up, but at most `seconds`."""
        with trio.move_on_after(seconds):
            await self._event.wait()
        self._event = trio.Event()


class Snapshots:
    """Iterates over the results of `read`: the first one, and then each one that differs from the previous one.

    `read` is called at least every `poll` seconds. A RegistryError is logged once, until a call succeeds again.
    This is an iterator and not a generator, so that a reader may leave its loop without closing it.
    """

    def __init__(
        self, read: Callable[[], Awaitable[Sequence[RegisteredAgent]]], wakeup: Wakeup, *, poll: float
    ) -> None:
        self._read = read
        self._wakeup = wakeup
        self._poll = poll
        self._seen: dict[str, RegisteredAgent] | None = None
        self._reachable = True
        self._begun = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[RegisteredAgent]:
        while True:
            if self._begun:
                await trio.sleep(PAUSE)
                await self._wakeup.wait(self._poll * random.uniform(0.8, 1))  # noqa: S311  spreads load
            self._begun = True
            agents = await self._try_read()
            if agents is not None:
                found = {agent.instance_id: agent for agent in agents}
                if found != self._seen:
                    self._seen = found
                    return agents

    async def _try_read(self) -> Sequence[RegisteredAgent] | None:
        try:
            agents = await self._read()
        except RegistryError as error:
            if self._reachable:
                logger.warning("changes of agents cannot be read at present: %s", error)
            self._reachable = False
            return None
        self._reachable = True
        return agents
