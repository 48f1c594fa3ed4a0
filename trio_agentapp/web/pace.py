"""Limits the writes of one stream per second when it writes in a burst."""

from __future__ import annotations

import trio

__all__ = ["Pace"]

WINDOW = 0.002
"""Seconds between two writes of a stream in a burst: the events of that time are sent in one write."""

BURST = 8
"""Writes in quick succession after which a stream counts as a burst. Slow and short streams never wait."""


class Pace:
    """The rate of one stream's writes. Call `note_write` after each write, and `wait` before the next one."""

    __slots__ = ("_in_succession", "_written_at")

    def __init__(self) -> None:
        self._written_at = 0.0
        self._in_succession = 0

    def note_write(self) -> None:
        now = trio.current_time()
        self._in_succession = self._in_succession + 1 if now - self._written_at < 2 * WINDOW else 0
        self._written_at = now

    @property
    def in_burst(self) -> bool:
        return self._in_succession >= BURST

    async def wait(self) -> None:
        """In a burst, wait until the window is over. Otherwise return at once, without a checkpoint."""
        if self.in_burst:
            await trio.sleep_until(self._written_at + WINDOW)
