"""Names of Redis keys and channels.

All keys of a session share a Redis Cluster hash tag, its digest: one session is one slot, and no client's text gets
into a key's name, except a run id, which is checked before.
"""

from __future__ import annotations

import hashlib

import attrs

from ..errors import ConfigurationError

__all__ = ["SHARDS", "Layout"]

SHARDS = 16
"""Parts of the lease index."""


def _prefix(_instance: object, _attribute: attrs.Attribute[str], value: str) -> None:
    if not value or any(sign in value for sign in "{} \r\n"):
        raise ConfigurationError(f"a Redis prefix has no braces, spaces or line ends, and is not empty: {value!r}")


@attrs.frozen
class Layout:
    """The names under one prefix; apps with different prefixes never meet on one server.

    Raises ConfigurationError for a prefix that cannot be one.
    """

    prefix: str = attrs.field(validator=_prefix)

    def base(self, digest: str) -> str:
        """Where all keys of a session begin."""
        return f"{self.prefix}:{{{digest}}}:"

    def session(self, digest: str) -> str:
        return f"{self.base(digest)}s"

    def events(self, digest: str, run_id: str) -> str:
        """The stream of a run's events."""
        return f"{self.base(digest)}e:{run_id}"

    def viewers(self, digest: str, run_id: str) -> str:
        """Which nodes have readers of a run."""
        return f"{self.base(digest)}v:{run_id}"

    def viewed(self, digest: str, run_id: str) -> str:
        """When the last of these readers was there."""
        return f"{self.base(digest)}vt:{run_id}"

    def session_channel(self, digest: str) -> str:
        """Where ends of a session's runs, and their events, are told."""
        return f"{self.base(digest)}w"

    def run(self, run_id: str) -> str:
        """The hash that leads from a run id alone to its session."""
        return f"{self.prefix}:run:{run_id}"

    def user(self, user_id: str) -> str:
        """The index of a user's runs by their start."""
        return f"{self.prefix}:u:{hashlib.sha256(user_id.encode()).hexdigest()[:32]}"

    def pin(self, name: str) -> str:
        """What was once said under a name, such as an idempotency key."""
        return f"{self.prefix}:pin:{hashlib.sha256(name.encode()).hexdigest()[:32]}"

    def shard_of(self, digest: str) -> str:
        return self.shard(int(digest[0], 16))

    def shard(self, number: int) -> str:
        """One part of the index of leases by their end."""
        return f"{self.prefix}:lease:{number}"

    def node_channel(self, node_id: str) -> str:
        """Where a node hears of stops and of input."""
        return f"{self.prefix}:n:{node_id}"
