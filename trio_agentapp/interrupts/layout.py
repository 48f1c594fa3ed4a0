"""Names of keys and channels (INTERRUPT-PROTOCOL, section 3).

All keys of a session share a Redis Cluster hash tag, its digest: one session is one slot, and no client's text gets
into a key's name, except a run id, which is checked before.
"""

from __future__ import annotations

import attrs

__all__ = ["SHARDS", "Layout"]

SHARDS = 16
"""Parts of the lease index."""


@attrs.frozen
class Layout:
    """The names under one prefix; apps with different prefixes never meet on one server."""

    prefix: str

    def base(self, digest: str) -> str:
        """Where all keys of a session begin."""
        return f"{self.prefix}:{{{digest}}}:"

    def run(self, run_id: str) -> str:
        """The hash that leads from a run id alone to its session."""
        return f"{self.prefix}:run:{run_id}"

    def shard_of(self, digest: str) -> str:
        return self.shard(int(digest[0], 16))

    def shard(self, number: int) -> str:
        """One part of the index of leases by their end."""
        return f"{self.prefix}:lease:{number}"

    def node_channel(self, node_id: str) -> str:
        """Where a node hears of stops."""
        return f"{self.prefix}:n:{node_id}"
