"""An event and a lock of Trio that are made when a task first waits for them.

An idle chat has several for which no task ever waits, and an event takes 300 bytes, a lock 400.
"""

from __future__ import annotations

import trio

__all__ = ["LateEvent", "LateLock"]


class LateEvent:
    """Like `trio.Event`, and may be cleared."""

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: trio.Event | None = None

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        event, self._event = self._event, None
        if event is not None:
            event.set()

    def clear(self) -> None:
        self._is_set = False

    async def wait(self) -> None:
        """Wait until it is set. If it is set already, only execute a checkpoint."""
        if self._is_set:
            await trio.lowlevel.checkpoint()
            return
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()


class LateLock:
    """A lock for `async with`. Its `trio.Lock` exists only while it is held."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock: trio.Lock | None = None

    def locked(self) -> bool:
        return self._lock is not None

    async def __aenter__(self) -> None:
        if self._lock is None:
            self._lock = trio.Lock()
        try:
            await self._lock.acquire()
        except BaseException:
            self._forget()
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._lock is not None  # noqa: S101  it is held
        self._lock.release()
        self._forget()

    def _forget(self) -> None:
        # Keep the lock if a task that waited for it holds it now.
        if self._lock is not None and not self._lock.locked():
            self._lock = None
