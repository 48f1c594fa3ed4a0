"""How often and how long the client tries again after failed connections."""

from __future__ import annotations

import logging
import random

import attrs
import trio

from ..errors import ConfigurationError, ConnectionLost, RequestError
from .failures import ConnectionFailed

__all__ = ["Attempts", "Retries"]

logger = logging.getLogger("trio_agentapp.client")

JITTER = 0.5
"""The least fraction of a delay that is used.

The rest is random, so that clients do not return at the same time.
"""


@attrs.frozen(kw_only=True)
class Retries:
    """How often and how long a client tries again when connections fail.

    Each event that arrives resets the count.

    `attempts`: rounds through all base URLs, at most. `seconds`: no round begins later than this after the first.
    `first_delay`, doubled each time, at most `last_delay`: seconds between two rounds, jittered.
    Raises ConfigurationError for a number below its minimum.
    """

    attempts: int = 8
    seconds: float = 60.0
    first_delay: float = 0.1
    last_delay: float = 5.0

    def __attrs_post_init__(self) -> None:
        if self.attempts < 1 or min(self.seconds, self.first_delay, self.last_delay) < 0:
            raise ConfigurationError(f"Retries: attempts must be at least 1, and durations at least 0 s: {self}")


class Attempts:
    """The rounds through all nodes that one call has made."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._made = 0
        self._until = trio.current_time() + retries.seconds

    async def pause(self, failure: Exception, nodes: object) -> None:
        """Wait until the next round may begin.

        Raises ConnectionLost if no round is left, or `failure` itself if it is a refusal of a server.
        """
        self._made += 1
        retries = self._retries
        full = min(retries.first_delay * 2.0 ** min(self._made - 1, 62), retries.last_delay)
        delay = full * random.uniform(JITTER, 1)  # noqa: S311  spreads load, protects nothing
        if isinstance(failure, RequestError) and failure.retry_after is not None:
            delay = max(delay, failure.retry_after)
        spent = self._made >= retries.attempts or trio.current_time() + delay > self._until
        permanent = isinstance(failure, ConnectionFailed) and failure.permanent
        if not spent and not permanent:
            logger.warning("%s: %s; trying again in %.1f s", nodes, failure, delay)
            await trio.sleep(delay)
            return
        if isinstance(failure, RequestError):
            raise failure
        tries = "" if permanent or self._made == 1 else f" ({self._made} attempts)"
        raise ConnectionLost(f"{nodes}: {failure}{tries}") from failure
