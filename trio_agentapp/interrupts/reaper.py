"""Ends the runs of dead owners. It finds expired leases also if no request uses their sessions."""

from __future__ import annotations

import logging
import random

import trio
from redis.exceptions import RedisError

from ..protocol.keys import SHARDS, Layout
from ..protocol.timings import Timings
from ..redis import LinkError, RedisLink
from .scripts import Scripts

__all__ = ["reap_forever"]

logger = logging.getLogger("trio_agentapp.interrupts")

AT_MOST = 200
"""Sessions of one shard that are checked in one round. Rounds are repeated until all due ones are checked."""


async def reap_forever(link: RedisLink, layout: Layout, scripts: Scripts, timings: Timings) -> None:
    """Check the lease index every `timings.reaper` seconds, with jitter. Several nodes may do so at once."""
    session_ttl = int(timings.session_ttl * 1000)
    while True:
        await trio.sleep(timings.reaper * random.uniform(0.7, 1.0))  # noqa: S311  jitter
        for number in range(SHARDS):
            try:
                await _reap_shard(link, layout.shard(number), scripts, session_ttl)
            except (LinkError, RedisError) as exc:
                logger.warning("expired leases could not be looked up: %s", exc)
                if isinstance(exc, LinkError):
                    break  # the other shards are on the same server


async def _reap_shard(link: RedisLink, shard: str, scripts: Scripts, session_ttl: int) -> None:
    while True:
        [due] = await link.ask(scripts.index(shard, "due", AT_MOST))
        digests = [digest.decode() for digest in due]
        if digests:
            left = await link.ask(*[scripts.bind("reap", digest) for digest in digests])
            over = [digest for digest, ms in zip(digests, left, strict=True) if not _is_live(ms)]
            for ended in left:
                if isinstance(ended, list):
                    run, node = (word.decode(errors="replace") for word in ended)
                    logger.warning("run %s was reaped: node %s let its lease expire", run, node)
            # Renewals do not update the index. So a lease that is still valid is entered again with its current
            # end.
            calls = [
                scripts.index(shard, "add", ms, session_ttl, digest)
                for digest, ms in zip(digests, left, strict=True)
                if _is_live(ms)
            ]
            if over:
                calls.append(scripts.index(shard, "settle", *over))
            await link.ask(*calls)
        if len(digests) < AT_MOST:
            return


def _is_live(left: object) -> bool:
    return isinstance(left, int) and left > 0
