"""Token buckets: one for each principal, in the memory of this process.

A bucket is one number, the time at which it will be full again (the "theoretical arrival time" of the generic cell
rate algorithm, ITU-T I.371). Taking a token moves that time by one interval; a bucket whose time lies further ahead
than its size allows is empty. So a request costs one look-up in a dictionary, and no timer refills anything.
"""

from __future__ import annotations

from collections import OrderedDict

import attrs
import trio

from ..errors import TooManyRequests

__all__ = ["BURST_SECONDS", "DEFAULT_PER_SECOND", "MAX_BUCKETS", "Rates", "rate_limit"]

DEFAULT_PER_SECOND = 100.0
"""A small request takes about a millisecond of a core, so one client gets a tenth of a core. The cheapest messages
on a WebSocket take a twentieth of that."""

BURST_SECONDS = 5.0
"""Seconds of the rate that a principal may use at once after a quiet time: a page opens with many requests."""

MAX_BUCKETS = 50_000
"""Buckets of one limit, about 12 MB. Then the oldest are forgotten, and their owners begin with a full one."""

REFUSAL_INTERVAL = 0.01
"""Seconds between two refusals to one principal. A refusal costs about as much as a small request. A client that
floods over several connections gets its refusals one after the other, and sends no more than that."""

LONGEST_PAUSE = 5.0
"""Seconds that a refusal may be delayed. A client that waits for its answer is still there."""


@attrs.define
class _Bucket:
    full_at: float
    """On Trio's clock. A bucket is full if this is past."""
    refused_until: float = 0.0
    """When the next refusal may be sent."""


class Rates:
    """The buckets of one limit.

    Args:
        limit: its name.
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
        """Tokens that were taken since other nodes were told; None while there are none to tell."""

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
        """Note that all nodes together have taken tokens of `ahead` seconds, except for those still to be told."""
        bucket = self._buckets.get(principal)
        if bucket is not None:
            untold = 0 if self.taken is None else self.taken.get(principal, 0)
            bucket.full_at = trio.current_time() + ahead + untold * self.interval

    def _add(self, principal: str, now: float) -> _Bucket:
        # Two old ones are looked at for each new one, so that the full ones are forgotten without a task for that.
        for _ in range(min(2, len(self._buckets))):
            oldest, bucket = self._buckets.popitem(last=False)
            if max(bucket.full_at, bucket.refused_until) > now and len(self._buckets) < MAX_BUCKETS - 1:
                self._buckets[oldest] = bucket
        bucket = self._buckets[principal] = _Bucket(now)
        return bucket


def rate_limit(limit: str, per_second: float | None) -> Rates:
    """The buckets of a setting. None: the default, without a limit for clients of this machine that are nobody."""
    return Rates(limit, DEFAULT_PER_SECOND if per_second is None else per_second, local=per_second is not None)


def is_local(principal: str) -> bool:
    """Whether this is an address of the machine itself: of a developer, a proxy, or a back end beside the app."""
    return principal.startswith(("address 127.", "address ::/64"))
