"""When a server may be asked for sessions: not while leases that it has forgotten may still be held.

A server that was restarted, or another that took its place, may have lost claims. Until every lease from before has
run out, a second run of a session could start beside the first (INTERRUPT-PROTOCOL, section 8).
"""

from __future__ import annotations

import math

import trio

from ..redis import ServerInfo

__all__ = ["Quarantine"]


class Quarantine:
    """Knows the server that was last seen, and from when on it may be trusted with claims."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._run_id: str | None = None
        self._over_at = -math.inf
        self._clock: trio.lowlevel.TrioToken | None = None

    def see(self, server: ServerInfo) -> None:
        """A connection was made to `server`."""
        if (clock := trio.lowlevel.current_trio_token()) is not self._clock:
            # Another run of Trio, whose clock has nothing to do with the last one's: what it knew of is past.
            self._clock, self._run_id, self._over_at = clock, None, -math.inf
        if server.run_id is not None and server.run_id == self._run_id:
            return
        first, self._run_id = self._run_id is None, server.run_id
        if not first:
            self._over_at = server.connected_at + self._lease
        elif server.uptime is not None:
            # Uptime comes in whole seconds, rounded down: the server may be no older than it says.
            self._over_at = server.connected_at + max(0.0, self._lease - server.uptime)

    @property
    def left(self) -> float:
        """Seconds until claims may be sent; 0 if they may."""
        return max(0.0, self._over_at - trio.current_time())
