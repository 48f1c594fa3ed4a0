"""Checks whether a Redis server can hold leases, and whether it accepts claims, by running a script that writes.

An open connection does not prove that: a replica, a full server, and a server whose user may not run scripts accept
connections and refuse every claim.
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
    ReadOnlyError,
    RedisError,
)

from ..errors import ConfigurationError
from ..protocol.keys import Layout
from ..redis import Command, LinkDown, LinkError, RedisLink, is_full
from .scripts import Scripts

__all__ = ["ServerProbe"]

logger = logging.getLogger("trio_agentapp.interrupts")

PERIOD = 3.0
"""Seconds between two probes of a node, each with one small write. Readiness requests cause no probes."""

MIN_PERIOD = 0.5
"""Seconds between two probes at least, if failed claims ask for an early one."""


class ServerProbe:
    """Probes one server regularly. `refusal` is why it accepts no claims; None if it accepts them."""

    def __init__(self, link: RedisLink, layout: Layout, scripts: Scripts) -> None:
        self.refusal: str | None = None
        self._link = link
        self._layout = layout
        self._scripts = scripts
        self._complete = False
        """Whether all commands of all scripts were tried successfully."""
        self._logged = False
        self._due = trio.Event()

    def hurry(self) -> None:
        """Probe soon: a claim has failed."""
        self._due.set()

    async def check_settings(self) -> None:
        """Check the server.

        Raises ConfigurationError if it shares its keys with other servers, or may evict keys.
        """
        cluster = await self._link.client.call("INFO", "cluster")
        if cluster.get("cluster_enabled") and (await self._cluster_size()) > 1:
            raise ConfigurationError(ONE_SERVER)
        memory = await self._link.client.call("INFO", "memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise ConfigurationError(
                f"this Redis evicts keys when it is full (maxmemory-policy {policy}), so running sessions could be "
                "lost; set maxmemory-policy to noeviction, or use another server for interrupts"
            )

    async def _cluster_size(self) -> int:
        """Return the number of nodes that share the keys; 0 while no node has keys."""
        info = await self._link.client.call("CLUSTER INFO")
        return int(info["cluster_size"])

    async def begin(self) -> None:
        """Try all commands that runs will need. A refusal that may be temporary is stored in `refusal`.

        Raises:
            ConfigurationError: this server will never accept claims of this user.
        """
        call = self._scripts.probe(everything=True)
        try:
            # Use EVAL as well: EVALSHA of a script that the server has does not show whether it can load one.
            await self._link.ask(call.by_source, call, self._deletion())
            self._complete = True
        except RedisError as exc:
            if (never := self._never(exc)) is not None:
                raise ConfigurationError(never) from exc
            self._note(_passing(exc))

    async def ask_forever(self) -> None:
        lost = 0
        while True:
            with trio.move_on_after(PERIOD - MIN_PERIOD):
                await self._due.wait()
            await trio.sleep(MIN_PERIOD)
            self._due = trio.Event()
            try:
                await self._link.ask(self._scripts.probe(everything=not self._complete), self._deletion())
                self._complete = True
            except LinkDown:
                lost += 1
                # After the refusal of a replica the link reconnects. One failed call in that time does not mean
                # anything.
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
        """Return the command that deletes the probe's key.

        Outside of a script, old servers refuse it if replicas are missing.
        """
        return ("DEL", self._scripts.probed)

    def _note(self, refusal: str | None) -> None:
        self.refusal = refusal
        if refusal is not None and not self._logged:
            logger.warning("no new runs: %s", refusal)
        elif refusal is None and self._logged:
            logger.warning("Redis accepts claims again")
        self._logged = refusal is not None

    def _never(self, error: RedisError) -> str | None:
        """Return the message for a refusal that is permanent; None for other refusals."""
        text = _first_line(error)
        if isinstance(error, MovedError | ClusterCrossSlotError):
            return ONE_SERVER
        if isinstance(error, NoPermissionError) or any(sign in text for sign in NO_PERMISSION):
            prefix = self._layout.prefix
            return (
                f"the user of the Redis URL lacks permissions that runs need ({text}); give it "
                f"~{prefix}:* &{prefix}:* and the commands that the documentation lists, or +@all"
            )
        if re.search("unknown (redis )?command", text, re.IGNORECASE):
            return (
                f"this Redis lacks a command that runs need ({text}); remove its rename-command, or use another "
                "server for interrupts"
            )
        return None


ONE_SERVER = (
    "this Redis is one of several nodes of a Redis Cluster, which is not supported; use a single server, or "
    "several with Sentinel (redis+sentinel://)"
)

NO_PERMISSION = ("NOPERM", "ACL failure in script", "can't run this command", "no permissions to")


def _passing(error: RedisError) -> str:
    text = _first_line(error)
    if isinstance(error, ReadOnlyError) or "READONLY" in text:
        return "Redis is a read-only replica"
    if isinstance(error, ClusterDownError) or "CLUSTERDOWN" in text:
        return f"Redis is a cluster that does not serve: {text}"
    if is_full(error):
        return "Redis is full (maxmemory)"
    return f"Redis refuses to write: {text}"


def _first_line(error: RedisError) -> str:
    return str(error).partition("\n")[0].removesuffix(".")
