"""A value with its earlier version and its fence. Memory and SQLite use it; Redis does the same in Lua."""

from __future__ import annotations

import attrs

from ..errors import StaleToken

__all__ = ["Record", "stale"]


def stale(token: int, fence: int) -> StaleToken:
    return StaleToken(
        f"the run with token {token} lost its session to a later one, with {fence}; nothing was written"
    )


@attrs.define
class Record:
    """A value; None if it was deleted or never written.

    `before` is the version from before the writes of the run with the token `writer`. If `writer` is None, there is
    no such version. `fence` is the greatest token so far.
    """

    value: bytes | None = None
    before: bytes | None = None
    writer: int | None = None
    fence: int = 0

    def admit(self, token: int | None) -> None:
        """Refuse the write of a run if a later run has written. Code outside of runs has no token.

        Raises:
            StaleToken: `token` is below the fence. The record is unchanged.
        """
        if token is None:
            return
        if token < self.fence:
            raise stale(token, self.fence)
        self.fence = token

    def write(self, value: bytes | None, token: int | None) -> None:
        """Replace the value. The first write of a run keeps the version before it. Raises StaleToken."""
        self.admit(token)
        if token is None:
            self.before = None
        elif token != self.writer:
            self.before = self.value
        self.writer = token
        self.value = value

    def undo(self, token: int) -> bool:
        """Restore the version from before the writes of the run with `token`, if they are the last ones."""
        if self.writer != token:
            return False
        self.value, self.before, self.writer = self.before, None, None
        return True

    @property
    def size(self) -> int:
        return len(self.value or b"") + len(self.before or b"")
