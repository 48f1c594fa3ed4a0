"""How long to wait between two attempts to connect."""

from __future__ import annotations

import random

import attrs

__all__ = ["Backoff"]

JITTER = 0.5
"""Each delay is drawn from this part of its full length up to the whole, so that nodes do not return in step."""


def _positive(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be greater than 0 seconds, not {value}")


@attrs.frozen
class Backoff:
    """Exponential, jittered: `first` seconds, then twice as long each time, at most `last` seconds."""

    first: float = attrs.field(default=0.02, validator=_positive)
    last: float = attrs.field(default=2.0, validator=_positive)

    def delay(self, attempt: int) -> float:
        """Seconds to wait before attempt number `attempt`, which counts from 0."""
        # 2 ** 62 is far past any `last`; a float exponent without a bound would overflow after hours of trying.
        full = min(self.first * 2.0 ** min(attempt, 62), self.last)
        return full * random.uniform(JITTER, 1)  # noqa: S311  spreads load, protects nothing
