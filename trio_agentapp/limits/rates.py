"""Token buckets: one for each principal, in the memory of this process.

A bucket is one number, the time at which it will be full again (the "theoretical arrival time" of the generic cell
rate algorithm, ITU-T I.371). Taking a token moves that time by one interval; a bucket is empty if its time is
further ahead than its size allows. So a request costs one lookup in a dictionary, and no timer has to refill
buckets.
"""

from __future__ import annotations

from collections import OrderedDict

import attrs
import trio

from ..errors import TooManyRequests

__all__ = ["BURST_SECONDS", "DEFAULT_PER_SECOND", "MAX_BUCKETS", "Rates", "rate_limit"]

DEFAULT_PER_SECOND = 100.0
"""Tokens per second.

A small request takes about a millisecond of a core, so one client gets a tenth of a core. The cheapest messages on
a WebSocket take a twentieth of a millisecond.
"""

BURST_SECONDS = 5.0
"""Size of a bucket, in seconds of its rate.

A page opens with many requests at once, so some seconds are allowed.
"""

MAX_BUCKETS = 50_000
"""Buckets of one limit, about 12 MB.

Beyond it the oldest are removed, and their owners start with a full bucket.
"""

REFUSAL_INTERVAL = 0.01
"""Seconds between two refusals to one principal.

A refusal costs about as much as a small request. A client that floods over several connections gets one refusal
after the other, and so cannot send faster.
"""

LONGEST_PAUSE = 5.0
"""Seconds that a refusal may be delayed. A client still waits for its answer after this time."""


@attrs.define
class _Bucket:
    full_at: float
    """When the bucket is full again, on Trio's clock. It is full if this time is past."""
    refused_until: float = 0.0
    """When the next refusal may be sent."""


class Rates:
    """The buckets of one limit.

    Args:
        limit: the name of the limit.
        per_second: tokens that each bucket gets each second; 0: no limit.
        size: tokens of a full bucket; None: those of `BURST_SECONDS`.
        local: whether addresses of this machine are limited, see `is_local`.
    """

    def __init__(self, limit: str, per_second: float, *, size: int | None = None, local: bool = True) -> None:
        self.limit = limit
        self._local = local
        self.interval = 1 / per_second if per_second else 0.0
        self.size = max(1, round(per_second * BURST_SECONDS)) if size is None else size
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self.taken: dict[str, int] | None = None
        """Tokens of each principal since the last exchange with other nodes; None if limits are not shared."""

    def take(self, principal: str | None) -> float:
        """Take a token. Return 0, or the seconds after which there will be one. Without a principal: always 0."""
        if principal is None or not self.interval or (not self._local and is_local(principal)):
            return 0.0
        now = trio.current_time()
        bucket = self._buckets.get(principal) or self._add(principal, now)
        full_at = max(bucket.full_at, now) + self.interval
        missing = full_at - now - self.size * self.interval
        if missing > 1e-9:  # the sum of many intervals is not exact
            return missing
        bucket.full_at = full_at
        if self.taken is not None:
            self.taken[principal] = self.taken.get(principal, 0) + 1
        return 0.0

    async def admit(self, principal: str | None) -> None:
        """Take a token. Raises TooManyRequests, after a pause if this principal was refused just before."""
        if missing := self.take(principal):
            assert principal is not None  # noqa: S101  without one nothing is refused
            await self.refuse(principal, missing)

    async def refuse(self, principal: str, missing: float) -> None:
        """Raise TooManyRequests, see `admit`. `missing`: seconds after which there will be a token."""
        await self.pause(principal)
        raise self.refusal(missing)

    async def pause(self, principal: str) -> None:
        """Wait until a refusal to this principal may be sent."""
        now = trio.current_time()
        bucket = self._buckets.get(principal) or self._add(principal, now)
        pause = min(LONGEST_PAUSE, bucket.refused_until - now)
        bucket.refused_until = min(max(bucket.refused_until, now) + REFUSAL_INTERVAL, now + LONGEST_PAUSE)
        await trio.sleep(max(0.0, pause))

    def refusal(self, missing: float) -> TooManyRequests:
        """The error for a principal that must wait `missing` seconds."""
        return TooManyRequests(
            f"The limit of {self.limit} is reached ({1 / self.interval:g} per second).",
            limit=self.limit,
            quota=self.size,
            window=self.size * self.interval,
            retry_after=missing,
        )

    def correct(self, principal: str, ahead: float) -> None:
        """Set a bucket to what all nodes have taken: `ahead` seconds of tokens, and those taken here since then."""
        bucket = self._buckets.get(principal)
        if bucket is not None:
            untold = 0 if self.taken is None else self.taken.get(principal, 0)
            bucket.full_at = trio.current_time() + ahead + untold * self.interval

    def _add(self, principal: str, now: float) -> _Bucket:
        # Check two old buckets for each new one, so that full ones are removed without a task of their own.
        for _ in range(min(2, len(self._buckets))):
            oldest, bucket = self._buckets.popitem(last=False)
            if max(bucket.full_at, bucket.refused_until) > now and len(self._buckets) < MAX_BUCKETS - 1:
                self._buckets[oldest] = bucket
        bucket = self._buckets[principal] = _Bucket(now)
        return bucket


def rate_limit(limit: str, per_second: float | None) -> Rates:
    """Return the limit of a setting. None: the default rate, without a limit for addresses of this machine."""
    return Rates(limit, DEFAULT_PER_SECOND if per_second is None else per_second, local=per_second is not None)


def is_local(principal: str) -> bool:
    """Return whether a principal is an address of this machine, as of a developer, a proxy or a back end."""
    return principal.startswith(("address 127.", "address ::/64"))
