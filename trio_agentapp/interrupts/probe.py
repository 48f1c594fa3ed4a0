"""Whether a Redis server takes claims: it is asked for what a claim needs, a script that writes.

A connection alone says little: a replica, a full server, and one whose user may not run scripts accept it, and
refuse every claim.
"""

from __future__ import annotations

import logging
import re

import trio
from redis.exceptions import (
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)

from ..errors import ConfigurationError
from ..protocol.keys import Layout
from ..redis import Command, LinkDown, LinkError, RedisLink
from .scripts import Scripts

__all__ = ["ONE_SERVER", "ServerProbe", "is_full"]

logger = logging.getLogger("trio_agentapp.interrupts")

PERIOD = 3.0
"""Seconds between two probes of a node, whatever the number of readiness requests; one small write each."""

PAUSE = 0.5
"""Seconds between two probes at least, where failing claims ask for one."""


class ServerProbe:
    """Asks one server again and again; `refusal` is why it takes no claims, None while it does."""

    def __init__(self, link: RedisLink, layout: Layout, scripts: Scripts) -> None:
        self.refusal: str | None = None
        self._link = link
        self._layout = layout
        self._scripts = scripts
        self._complete = False
        """Whether everything was asked for, and had."""
        self._told = False
        self._due = trio.Event()

    def hurry(self) -> None:
        """A claim was refused: look soon whether all are."""
        self._due.set()

    async def begin(self) -> None:
        """Ask for everything that runs will need. What may pass by itself is noted as `refusal`.

        Raises ConfigurationError: this server will never take claims of this user.
        """
        call = self._scripts.probe(everything=True)
        try:
            # EVAL by itself: a server that holds the script already would not show that it cannot load one.
            await self._link.ask(call.by_source, call, self._deletion())
            self._complete = True
        except RedisError as exc:
            if (never := self._never(exc)) is not None:
                raise ConfigurationError(never) from exc
            self._note(_passing(exc))

    async def ask_forever(self) -> None:
        lost = 0
        while True:
            with trio.move_on_after(PERIOD - PAUSE):
                await self._due.wait()
            await trio.sleep(PAUSE)
            self._due = trio.Event()
            try:
                await self._link.ask(self._scripts.probe(everything=not self._complete), self._deletion())
                self._complete = True
            except LinkDown:
                lost += 1
                # A replica's refusal has the link connect anew: one call that falls into that says nothing.
                if lost > 1:
                    self.refusal = None
            except LinkError as exc:
                self._note(f"Redis does not answer: {exc}")
            except RedisError as exc:
                lost = 0
                self._note(self._never(exc) or _passing(exc))
            else:
                lost = 0
                self._note(None)

    def _deletion(self) -> Command:
        """Leaves nothing behind, and is a write without a script: only for these old servers count replicas."""
        return ("DEL", self._scripts.probed)

    def _note(self, refusal: str | None) -> None:
        self.refusal = refusal
        if refusal is not None and not self._told:
            logger.warning("no new runs: %s", refusal)
        elif refusal is None and self._told:
            logger.warning("Redis takes claims again")
        self._told = refusal is not None

    def _never(self, error: RedisError) -> str | None:
        """The sentence for a refusal that does not pass by itself."""
        told = _first_line(error)
        if isinstance(error, MovedError | ClusterCrossSlotError):
            return ONE_SERVER
        if isinstance(error, NoPermissionError) or any(sign in told for sign in NO_PERMISSION):
            prefix = self._layout.prefix
            return (
                f"the user of the Redis URL may not do what runs need ({told}); give it ~{prefix}:* &{prefix}:* "
                "and the commands that the documentation lists, or +@all"
            )
        if re.search("unknown (redis )?command", told, re.IGNORECASE):
            return (
                f"this Redis lacks a command that runs need ({told}); take its rename-command away, or use another "
                "server for interrupts"
            )
        return None


ONE_SERVER = (
    "this Redis is one of several nodes of a Redis Cluster, which is not supported; use a single server, or "
    "several with Sentinel (redis+sentinel://)"
)

NO_PERMISSION = ("NOPERM", "ACL failure in script", "can't run this command", "no permissions to")


def _passing(error: RedisError) -> str:
    told = _first_line(error)
    if isinstance(error, ReadOnlyError) or "READONLY" in told:
        return "Redis is a read-only replica"
    if isinstance(error, ClusterDownError) or "CLUSTERDOWN" in told:
        return f"Redis is a cluster that does not serve: {told}"
    if is_full(error):
        return "Redis is full (maxmemory)"
    return f"Redis refuses to write: {told}"


def is_full(error: Exception) -> bool:
    """Before Redis 7 a script wraps the refusal in a message of its own."""
    return isinstance(error, OutOfMemoryError) or (isinstance(error, RedisError) and "-OOM " in str(error))


def _first_line(error: RedisError) -> str:
    return str(error).partition("\n")[0].removesuffix(".")
