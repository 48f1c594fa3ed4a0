"""Looks for leases that have ended, so that a dead owner's runs get their terminal state without anybody asking."""

from __future__ import annotations

import logging
import random

import trio
from redis.exceptions import RedisError

from ..redis import LinkError, RedisClient
from .layout import SHARDS, Layout
from .scripts import Scripts

__all__ = ["reap_forever"]

logger = logging.getLogger("trio_agentapp.interrupts")

AT_MOST = 200
"""Sessions of one shard looked at in one go."""


async def reap_forever(client: RedisClient, layout: Layout, scripts: Scripts, period: float) -> None:
    """Every `period` seconds, with a jitter so that nodes take turns. More than one harms nobody."""
    while True:
        await trio.sleep(period * random.uniform(0.7, 1.0))  # noqa: S311  jitter
        try:
            await _reap_once(client, layout, scripts)
        except (LinkError, RedisError) as exc:
            logger.warning("leases could not be looked through: %s", exc)


async def _reap_once(client: RedisClient, layout: Layout, scripts: Scripts) -> None:
    shards = [layout.shard(number) for number in range(SHARDS)]
    for shard, due in zip(
        shards,
        await client.pipeline([scripts.index(shard, "due", AT_MOST) for shard in shards]),
        strict=True,
    ):
        if isinstance(due, RedisError):
            raise due
        digests = [digest.decode() for digest in due]
        if not digests:
            continue
        left = await client.pipeline([scripts.bind("reap", digest) for digest in digests])
        over = [digest for digest, ms in zip(digests, left, strict=True) if ms == 0]
        # The index is a hint: renewals do not touch it, so a lease that goes on is entered anew.
        again = [scripts.index(shard, "add", ms, digest) for digest, ms in zip(digests, left, strict=True) if ms]
        for answer in await client.pipeline([*again, *([scripts.index(shard, "remove", *over)] if over else [])]):
            if isinstance(answer, RedisError):
                raise answer
