"""The quarantine of a Redis server that may have lost leases.

A server that was restarted, or took over from another one, may have lost claims. Then a second run of a session
could start beside the first. So no claim is sent until every earlier lease has expired.
"""

from __future__ import annotations

import math

import trio

from ..redis import ServerInfo

__all__ = ["Quarantine"]


class Quarantine:
    """Stores the last server, and when its quarantine ends."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._run_id: str | None = None
        self._over_at = -math.inf
        self._clock: trio.lowlevel.TrioToken | None = None

    def see(self, server: ServerInfo) -> None:
        """Record a new connection to `server`. Another server, or a restarted one, begins a quarantine."""
        if (clock := trio.lowlevel.current_trio_token()) is not self._clock:
            # Each `trio.run` has another clock, so times of the last one are not valid.
            self._clock, self._run_id, self._over_at = clock, None, -math.inf
        if server.run_id is not None and server.run_id == self._run_id:
            return
        first, self._run_id = self._run_id is None, server.run_id
        if not first:
            self._over_at = server.connected_at + self._lease
        elif server.uptime is not None:
            # Uptime is in whole seconds, rounded down, so the server is at least this old.
            self._over_at = server.connected_at + max(0.0, self._lease - server.uptime)

    @property
    def left(self) -> float:
        """Seconds until claims may be sent; 0 if they may be sent now."""
        return max(0.0, self._over_at - trio.current_time())
