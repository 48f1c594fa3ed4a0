"""Names of Redis keys and channels.

All keys of a session have its digest as their hash tag, so they are in one slot of a Redis Cluster. The run id is
the only text of a client in a key, and it was checked before. Their values: docs/reference/interrupt-protocol.md.
"""

from __future__ import annotations

import attrs

from ..errors import ConfigurationError
from .ids import digest_of

__all__ = ["SHARDS", "Layout"]

SHARDS = 16
"""Parts of the lease index."""


def _prefix(_instance: object, _attribute: attrs.Attribute[str], value: str) -> None:
    if not value or any(sign in value for sign in "{} \r\n"):
        raise ConfigurationError(
            f"a Redis prefix must not be empty, and must not contain braces, spaces or line ends: {value!r}"
        )


@attrs.frozen
class Layout:
    """The names under one prefix. Apps with different prefixes can share a server.

    Raises ConfigurationError for an invalid prefix.
    """

    prefix: str = attrs.field(validator=_prefix)

    def base(self, digest: str) -> str:
        """The beginning of all keys of a session."""
        return f"{self.prefix}:{{{digest}}}:"

    def session(self, digest: str) -> str:
        return f"{self.base(digest)}s"

    def events(self, digest: str, run_id: str) -> str:
        """The stream of a run's events."""
        return f"{self.base(digest)}e:{run_id}"

    def viewers(self, digest: str, run_id: str) -> str:
        """The nodes that have readers of a run."""
        return f"{self.base(digest)}v:{run_id}"

    def viewed(self, digest: str, run_id: str) -> str:
        """The time at which a run last had a reader."""
        return f"{self.base(digest)}vt:{run_id}"

    def session_channel(self, digest: str) -> str:
        """The channel for the events and ends of a session's runs."""
        return f"{self.base(digest)}w"

    def run(self, run_id: str) -> str:
        """The hash that has the session of a run id."""
        return f"{self.prefix}:run:{run_id}"

    def user(self, user_id: str) -> str:
        """The index of a user's runs by their start."""
        return f"{self.prefix}:u:{digest_of(user_id)}"

    def pin(self, name: str) -> str:
        """The value that was first stored under a name, such as an idempotency key."""
        return f"{self.prefix}:pin:{digest_of(name)}"

    def rate(self, limit: str, principal: str) -> str:
        """The token bucket of a principal. All of them are in one hash slot, because one call changes several."""
        return f"{self.prefix}:{{rate}}:{limit}:{digest_of(principal)}"

    def shard_of(self, digest: str) -> str:
        return self.shard(int(digest[0], 16))

    def shard(self, number: int) -> str:
        """One part of the index of leases, which is sorted by the time at which they expire."""
        return f"{self.prefix}:lease:{number}"

    def node_channel(self, node_id: str) -> str:
        """The channel on which a node receives stops and input."""
        return f"{self.prefix}:n:{node_id}"
