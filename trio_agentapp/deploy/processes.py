"""Processes that may be no children of this one: identifies, starts and ends them.

A process id alone is not enough: it is given to another process some time after the first one's death. So a process
is identified by its id and its start time, and signals go through a descriptor (pidfd) that never means another
one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import trio

from ..errors import DeployError

__all__ = ["Identity", "reap", "spawn", "wait_child"]

LISTENER = 3
"""The descriptor of the listening socket in the new process: the first after the standard ones."""

DEFAULT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@attrs.frozen
class Identity:
    """One process, also distinct from processes of other boots of this machine."""

    pid: int
    birth: str
    """The id of the boot, and the clock ticks from there to the start of the process."""

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The identity of a live process; None if there is none, or if it only waits to be reaped."""
        try:
            # Fields 3 and 22 of proc(5), read after the name, which may hold blanks and brackets.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        return None if fields[0] in "ZX" else cls(pid, f"{boot}:{fields[19]}")

    @classmethod
    def own(cls) -> Identity:
        found = cls.of(os.getpid())
        if found is None:
            raise DeployError("detached deployments need Linux and its /proc")
        return found

    @property
    def alive(self) -> bool:
        return Identity.of(self.pid) == self

    async def wait_end(self) -> None:
        with self._opened() as descriptor:
            if descriptor is not None:
                await trio.lowlevel.wait_readable(descriptor)
        reap(self.pid)

    def terminate(self) -> None:
        """Send SIGTERM."""
        with self._opened() as descriptor:
            if descriptor is not None:
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to its process group."""
        with self._opened() as descriptor, suppress(ProcessLookupError):
            if descriptor is not None:
                os.killpg(self.pid, signal.SIGKILL)

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        """Open a descriptor of this process; None if it is dead."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            yield descriptor if self.alive else None
        finally:
            os.close(descriptor)


def spawn(command: Sequence[str], environment: Mapping[str, str], *, log: Path, listener: int) -> int:
    """Start a process that inherits only the current folder and a socket; returns its id.

    It has a session of its own, so that no terminal ends it, no input, default signal handlers, and the socket as
    descriptor 3. Its output is appended to `log`. Nothing is forked.
    """
    if not hasattr(os, "pidfd_open"):
        raise DeployError("detached deployments need Linux")
    return os.posix_spawn(
        command[0],
        tuple(command),
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, listener, LISTENER),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=DEFAULT_SIGNALS,
    )


def reap(pid: int) -> int | None:
    """Return the exit code of a child, negative for a signal; None if it is no child or has not ended."""
    with suppress(ChildProcessError):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
    return None


async def wait_child(pid: int) -> int | None:
    """Wait for the end of a child and reap it; its exit code, None if other code has reaped it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    return reap(pid)
