"""The durations of leases, heartbeats and stops."""

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
    """All in seconds. The defaults hold for networks of one region; the letters are those of the protocol.

    Raises:
        ConfigurationError: a value that cannot be, or an owner that could still run when its lease has ended.
    """

    lease: float = attrs.field(default=15.0, validator=_positive)
    """L: how long an owner is believed alive after its last renewal, by Redis's clock."""
    heartbeat: float = attrs.field(default=3.0, validator=_positive)
    """H: between two renewals, with a jitter of a tenth."""
    cutoff: float = attrs.field(default=8.0, validator=_positive)
    """F: an owner cancels its body this long after it sent its last confirmed renewal."""
    offline_cleanup: float = attrs.field(default=5.0, validator=_positive)
    """C_off: cleanup time left to an owner that cannot reach Redis."""
    margin: float = attrs.field(default=2.0, validator=_positive)
    """M: for clock drift and scheduling."""
    reaper: float = attrs.field(default=5.0, validator=_positive)
    """R: between two looks for leases that have ended."""
    call_timeout: float = attrs.field(default=2.0, validator=_positive)
    """How long one call may take."""
    call_retry: float = attrs.field(default=0.5, validator=_positive)
    """How long after a failed renewal, or a failed finish at first, the next try comes."""
    claim_patience: float = attrs.field(default=5.0, validator=_positive)
    """How long a claim is tried while Redis does not answer."""
    retention: float = attrs.field(default=600.0, validator=_positive)
    """How long a run's record is kept after its end."""
    session_ttl: float = attrs.field(default=3600.0, validator=_positive)
    """How long an idle session's record is kept."""
    tombstone: float = attrs.field(default=60.0, validator=_positive)
    """How long a stop waits for its run to begin."""

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
