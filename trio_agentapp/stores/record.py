"""One thing that is kept, with the version before it and the fence: what memory and SQLite do, and Redis in Lua."""

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
    """A value (None: deleted, or never there) and who wrote it.

    `writer` is the token of the run whose writes `before` undoes; None: there is nothing to go back to. `fence` is
    the greatest token seen.
    """

    value: bytes | None = None
    before: bytes | None = None
    writer: int | None = None
    fence: int = 0

    def admit(self, token: int | None) -> None:
        """Refuse the write of a run that a later one has replaced. Code outside of runs has no token.

        Raises:
            StaleToken: nothing has changed.
        """
        if token is None:
            return
        if token < self.fence:
            raise stale(token, self.fence)
        self.fence = token

    def write(self, value: bytes | None, token: int | None) -> None:
        self.admit(token)
        if token is None:
            self.before = None
        elif token != self.writer:
            self.before = self.value
        self.writer = token
        self.value = value

    def undo(self, token: int) -> bool:
        """Go back to before the writes of the run with `token`, if they are the last ones."""
        if self.writer != token:
            return False
        self.value, self.before, self.writer = self.before, None, None
        return True

    @property
    def size(self) -> int:
        return len(self.value or b"") + len(self.before or b"")
