"""The delays between attempts to connect."""

from __future__ import annotations

import random

import attrs

__all__ = ["Backoff"]

JITTER = 0.5
"""The least fraction of a delay that is used.

The rest is random, so that nodes do not reconnect at the same moment.
"""


@attrs.frozen
class Backoff:
    """Exponential backoff with jitter: `first` seconds, then twice as long each time, at most `last` seconds."""

    first: float = 0.02
    last: float = 2.0

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait before attempt number `attempt`, counted from 0."""
        # The exponent is bounded: a float would overflow after hours of attempts.
        full = min(self.first * 2.0 ** min(attempt, 62), self.last)
        return full * random.uniform(JITTER, 1)  # noqa: S311  spreads load, protects nothing
