"""Tombstones: stops of runs that were not claimed yet. Here are those whose session is not known."""

from __future__ import annotations

from collections import OrderedDict

import trio

__all__ = ["LoneTombstones", "put_tombstone"]

MAX_LONE_TOMBSTONES = 4096
"""Tombstones of runs whose session is not known, of one user, or of all requests that name no user.

The oldest is dropped. They are counted for each user, so that a user who stops runs that do not exist cannot drop
those of others.
"""

MAX_LONE_USERS = 1024
"""Users with such tombstones. Beyond it, the tombstones of the user with the oldest ones are dropped."""


class LoneTombstones:
    """Tombstones by user and run id. None is the user of all requests that name no user."""

    def __init__(self) -> None:
        self.by_user: OrderedDict[str | None, OrderedDict[str, float]] = OrderedDict()

    def leave(self, user_id: str | None, run_id: str, expiry: float) -> None:
        now = trio.current_time()
        while self.by_user:
            user, left = next(iter(self.by_user.items()))
            # The last tombstone of a user is the latest.
            if left and next(reversed(left.values())) > now and len(self.by_user) <= MAX_LONE_USERS:
                break
            del self.by_user[user]
        left = self.by_user.setdefault(user_id, OrderedDict())
        self.by_user.move_to_end(user_id)
        put_tombstone(left, run_id, expiry, MAX_LONE_TOMBSTONES)

    def take(self, user_id: str | None, run_id: str) -> float:
        """Remove a tombstone. Returns its expiry, 0 if there is none."""
        left = self.by_user.get(user_id)
        return 0.0 if left is None else left.pop(run_id, 0.0)


def put_tombstone(tombstones: OrderedDict[str, float], run_id: str, expiry: float, at_most: int) -> None:
    """Put a tombstone at the end, and drop the oldest ones beyond `at_most`."""
    tombstones[run_id] = expiry
    tombstones.move_to_end(run_id)
    while len(tombstones) > at_most:
        tombstones.popitem(last=False)
