"""Looks for leases that have ended, so that a dead owner's runs get their terminal state without anybody asking."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Any

import trio
from redis.exceptions import RedisError

from ..protocol.keys import SHARDS, Layout
from ..protocol.timings import Timings
from ..redis import LinkError, RedisClient, ScriptCall
from .scripts import Scripts

__all__ = ["reap_forever"]

logger = logging.getLogger("trio_agentapp.interrupts")

AT_MOST = 200
"""Sessions of one shard looked at in one go; as many goes follow as it takes."""


async def reap_forever(client: RedisClient, layout: Layout, scripts: Scripts, timings: Timings) -> None:
    """Every `timings.reaper`, with a jitter so that nodes take turns. More than one harms nobody."""
    session_ttl = int(timings.session_ttl * 1000)
    while True:
        await trio.sleep(timings.reaper * random.uniform(0.7, 1.0))  # noqa: S311  jitter
        for number in range(SHARDS):
            try:
                await _reap_shard(client, layout.shard(number), scripts, session_ttl)
            except (LinkError, RedisError) as exc:
                logger.warning("leases could not be looked through: %s", exc)
                if isinstance(exc, LinkError):
                    break  # nor could the others


async def _reap_shard(client: RedisClient, shard: str, scripts: Scripts, session_ttl: int) -> None:
    while True:
        [due] = await _ask(client, [scripts.index(shard, "due", AT_MOST)])
        digests = [digest.decode() for digest in due]
        if digests:
            left = await _ask(client, [scripts.bind("reap", digest) for digest in digests])
            over = [digest for digest, ms in zip(digests, left, strict=True) if not _goes_on(ms)]
            for ended in left:
                if isinstance(ended, list):
                    run, node = (word.decode(errors="replace") for word in ended)
                    logger.warning("run %s was reaped: node %s has let its lease expire", run, node)
            # The index is a hint: renewals do not touch it, so a lease that goes on is entered anew.
            calls = [
                scripts.index(shard, "add", ms, session_ttl, digest)
                for digest, ms in zip(digests, left, strict=True)
                if _goes_on(ms)
            ]
            if over:
                calls.append(scripts.index(shard, "settle", *over))
            await _ask(client, calls)
        if len(digests) < AT_MOST:
            return


def _goes_on(left: object) -> bool:
    return isinstance(left, int) and left > 0


async def _ask(client: RedisClient, calls: Sequence[ScriptCall]) -> list[Any]:
    """The answers of one round trip; the first refusal is raised."""
    answers = await client.pipeline(calls)
    for answer in answers:
        if isinstance(answer, RedisError):
            raise answer
    return answers
