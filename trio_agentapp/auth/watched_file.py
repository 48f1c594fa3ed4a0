"""A file that is read again when it has changed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import trio

from ..errors import ConfigurationError

__all__ = ["WatchedFile"]

logger = logging.getLogger("trio_agentapp.auth")

T = TypeVar("T")

LOOK_INTERVAL = 1.0
"""Seconds between two checks of the file. A removed key stays valid for so long, at most."""

SETTLED = 2.0
"""Seconds after which a change of a file has certainly changed its time stamp, on every file system."""

MAX_FILE = 64 * 1024 * 1024
"""Bytes of a file."""

Stamp = tuple[int, int, int, int]


class WatchedFile(Generic[T]):
    """The parsed content of a file.

    If the file cannot be parsed, the last good content stays, so that a typing error does not lock out all clients.
    If the file is gone, the content is `empty`. Both are logged.
    """

    def __init__(self, path: str | os.PathLike[str], parse: Callable[[bytes], T], *, empty: T) -> None:
        """Read the file. `parse` raises ConfigurationError with words that follow the path and a colon.

        Raises ConfigurationError: the file cannot be read or parsed.
        """
        self._path = Path(path)
        self._parse = parse
        self._empty = empty
        self._looked_at = float("-inf")
        try:
            self._content, self._stamp = self._read()
        except OSError as error:
            raise ConfigurationError(f"{self._path} cannot be read: {error.strerror}") from error

    async def current(self) -> T:
        """Return the content. Reads the file at most once in `LOOK_INTERVAL`, in a thread."""
        now = trio.current_time()
        if now - self._looked_at >= LOOK_INTERVAL:
            # Set it before the wait, so that other requests do not read the file, too. They get the old content.
            self._looked_at = now
            await trio.to_thread.run_sync(self._refresh)
        return self._content

    def _refresh(self) -> None:
        try:
            if self._stamp is not None and _stamp_of(os.stat(self._path)) == self._stamp:
                return
            self._content, self._stamp = self._read()
        except FileNotFoundError:
            if self._content is not self._empty:
                logger.error("%s is gone; nothing in it is valid any more", self._path)  # noqa: TRY400
            self._content, self._stamp = self._empty, None
        except (OSError, ConfigurationError) as error:
            logger.error("%s; what it had before stays valid", error)  # noqa: TRY400
            self._stamp = self._broken_stamp()

    def _read(self) -> tuple[T, Stamp | None]:
        """Return the content and the file's time stamp; None if it may change again under the same stamp."""
        with open(self._path, "rb") as file:
            stat = os.fstat(file.fileno())
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise ConfigurationError(f"{self._path}: it has more than {MAX_FILE:,} bytes")
        try:
            content = self._parse(data)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self._path}: {error}") from error
        return content, _settled(stat)

    def _broken_stamp(self) -> Stamp | None:
        try:
            return _settled(os.stat(self._path))
        except OSError:
            return None


def _settled(stat: os.stat_result) -> Stamp | None:
    return _stamp_of(stat) if time.time() - stat.st_mtime > SETTLED else None


def _stamp_of(stat: os.stat_result) -> Stamp:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
