"""Follows the instances of an agent by reading them again: at once when woken, and from time to time."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import trio

from ..abc import RegisteredAgent
from ..errors import RegistryError

__all__ = ["MAX_LISTED", "Wakeup", "snapshots"]

logger = logging.getLogger("trio_agentapp.registries")

MAX_LISTED = 10_000
"""Instances that one call returns. It is far more than the agents of one system."""

PAUSE = 0.1
"""Seconds between two reads at least: many changes at once are read once."""


class Wakeup:
    """Wakes one waiting task. A wake-up while the task does not wait is kept."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def wake(self, *_: object) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Wait for a wake-up, for so many seconds at most."""
        with trio.move_on_after(seconds):
            await self._event.wait()
        self._event = trio.Event()


async def snapshots(
    read: Callable[[], Awaitable[Sequence[RegisteredAgent]]], wakeup: Wakeup, *, poll: float
) -> AsyncIterator[Sequence[RegisteredAgent]]:
    """Yield what `read` returns, again whenever it has changed. It is called every `poll` seconds at least.

    A RegistryError is logged once, until a call succeeds again.
    """
    seen: dict[str, RegisteredAgent] | None = None
    reachable = True
    while True:
        try:
            agents = await read()
        except RegistryError as error:
            if reachable:
                logger.warning("changes of agents cannot be read at present: %s", error)
            reachable = False
        else:
            reachable = True
            found = {agent.instance_id: agent for agent in agents}
            if found != seen:
                seen = found
                yield agents
        await trio.sleep(PAUSE)
        await wakeup.wait(poll * random.uniform(0.8, 1))  # noqa: S311  spreads load, protects nothing
