"""Locks of files, so that two processes do not change the same thing. The kernel frees those of a dead process."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DeployError

__all__ = ["locked", "only_one"]

logger = logging.getLogger(__name__)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock, blocking this thread: for blocks that take milliseconds, without an await."""
    with open(path, "ab", opener=_private) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold the lock during the block. Where no file can be written there is none, and a warning says so.

    Raises:
        DeployError: another process, or another task of this one, has it; with `what` it does and its process id.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(path, "a+b", opener=_private)  # noqa: SIM115  closed below
    except OSError as error:
        logger.warning("no lock in %s (%s): do not deploy twice at once", path.parent, error.strerror)
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read(20).decode(errors="replace") or "unknown"
            raise DeployError(f"process {owner} {what} at this moment; wait for its end, or end it") from None
        # The file stays: if it were removed, a process that has opened it would lock what no other can see.
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
