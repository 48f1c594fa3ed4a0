"""The durations of leases, heartbeats and stops. docs/reference/interrupt-protocol.md explains them."""

from __future__ import annotations

import math

import attrs

from ..errors import ConfigurationError

__all__ = ["Timings"]


def _positive(_instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigurationError(f"Timings: {attribute.name} must be a number of seconds above 0, not {value!r}")


@attrs.frozen(kw_only=True)
class Timings:
    """All in seconds. The defaults suit networks of one region; the letters are those of the interrupt protocol.

    Raises:
        ConfigurationError: a value is invalid, or an owner could still run when its lease has expired.
    """

    lease: float = attrs.field(default=15.0, validator=_positive)
    """L: how long an owner counts as alive after its last renewal, by the clock of Redis."""
    heartbeat: float = attrs.field(default=3.0, validator=_positive)
    """H: the time between two renewals, with a jitter of 10 %."""
    cutoff: float = attrs.field(default=8.0, validator=_positive)
    """F: an owner cancels its handlers this long after it sent its last confirmed renewal."""
    offline_cleanup: float = attrs.field(default=5.0, validator=_positive)
    """C_off: the cleanup budget of an owner that cannot reach Redis."""
    margin: float = attrs.field(default=2.0, validator=_positive)
    """M: for clock drift and scheduling."""
    reaper: float = attrs.field(default=5.0, validator=_positive)
    """R: the time between two searches for expired leases."""
    call_timeout: float = attrs.field(default=2.0, validator=_positive)
    """The time-out of one call."""
    call_retry: float = attrs.field(default=0.5, validator=_positive)
    """The delay before another attempt at a failed renewal, and the first delay at a failed finish."""
    claim_patience: float = attrs.field(default=5.0, validator=_positive)
    """How long a claim is repeated while Redis does not answer."""
    retention: float = attrs.field(default=600.0, validator=_positive)
    """How long a run's record is kept after its end."""
    session_ttl: float = attrs.field(default=3600.0, validator=_positive)
    """How long an idle session's record is kept."""
    tombstone: float = attrs.field(default=60.0, validator=_positive)
    """How long a stop is kept for a run that has not started."""

    def __attrs_post_init__(self) -> None:
        needed = self.cutoff + self.offline_cleanup + self.margin
        if needed > self.lease:
            raise ConfigurationError(
                f"Timings: cutoff + offline_cleanup + margin must not exceed lease, and {self.cutoff:g} + "
                f"{self.offline_cleanup:g} + {self.margin:g} = {needed:g} s is more than {self.lease:g}: an owner "
                "cut off from Redis could still run when another takes its session"
            )
        if self.heartbeat + self.call_timeout > self.cutoff:
            raise ConfigurationError(
                f"Timings: heartbeat + call_timeout must not exceed cutoff, and {self.heartbeat:g} + "
                f"{self.call_timeout:g} s is more than {self.cutoff:g} s: one lost call would end every run"
            )
        if self.session_ttl < self.lease:
            raise ConfigurationError("Timings: session_ttl must not be shorter than lease")
