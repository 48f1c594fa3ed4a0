"""Token buckets that all nodes share through Redis.

No request waits for Redis. A node decides by its own bucket, and ten times a second it notes in Redis what it has
given out, and gets back what all nodes have. So the rate of a principal holds over all nodes. Its burst may be
larger for a moment, by what other nodes admit within one period; the principal then waits longer, because all
tokens are counted. While Redis does not answer, each node limits by itself.
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
"""Seconds between two exchanges. Only principals that have sent something since are in one."""

AT_ONCE = 500
"""Principals in one call, so that Redis is not held up for others."""


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
            # What was taken is not told again: the link is about to be down, or Redis is full.
            log.debug("the rates of %d principals were not shared: %s", len(part) + len(taken), error)
            return
        for (principal, _), milliseconds in zip(part, full, strict=True):
            rates.correct(principal, milliseconds / 1000)
