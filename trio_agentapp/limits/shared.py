"""Token buckets that all nodes share through Redis.

No request waits for Redis. A node decides by its own bucket. Ten times a second it adds the tokens that it has
given out to Redis, and gets the sum of all nodes. So the rate of a principal holds over all nodes. Its burst may be
larger by what other nodes admit within one period. The principal waits longer after that, because all tokens are
counted. While Redis does not answer, each node limits by itself.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from importlib.resources import files

import trio
from redis.exceptions import RedisError

from ..protocol.keys import Layout
from ..redis import LinkError, RedisLink, Script
from .rates import Rates

__all__ = ["share_forever"]

log = logging.getLogger("trio_agentapp.limits")

PERIOD = 0.1
"""Seconds between two exchanges.

An exchange has only the principals that have sent something since the last one.
"""

AT_ONCE = 500
"""Principals in one call, so that Redis is not blocked for others."""


async def share_forever(link: RedisLink, layout: Layout, limits: Iterable[Rates]) -> None:
    """Share buckets until cancelled. The link is served by its owner."""
    script = Script((files(__package__) / "lua" / "take.lua").read_text())
    limits = [each for each in limits if each.interval]
    for each in limits:
        each.taken = {}
    try:
        while True:
            await trio.sleep(PERIOD)
            for each in limits:
                await _exchange(link, layout, script, each)
    finally:
        for each in limits:
            each.taken = None


async def _exchange(link: RedisLink, layout: Layout, script: Script, rates: Rates) -> None:
    taken, rates.taken = rates.taken or {}, {}
    while taken:
        part = [taken.popitem() for _ in range(min(AT_ONCE, len(taken)))]
        keys = [layout.rate(rates.limit, principal) for principal, _ in part]
        grown = [math.ceil(count * rates.interval * 1000) for _, count in part]
        try:
            [full] = await link.ask(script.bind(keys, grown))
        except (LinkError, RedisError) as error:
            # These tokens are not sent again. Usually the link is down or Redis is full, and later calls would fail
            # as well.
            log.debug("the rates of %d principals were not shared: %s", len(part) + len(taken), error)
            return
        for (principal, _), milliseconds in zip(part, full, strict=True):
            rates.correct(principal, milliseconds / 1000)
