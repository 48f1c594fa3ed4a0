"""Processes that are not held as children: who is who, how to start one, how to end one.

A process id alone names nobody: it is given to another process some time after its death. So a process is known by
its id and its birth, and is signalled through a descriptor (pidfd) that never means another one.
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
"""The descriptor under which a new process finds its listening socket: the first after the standard ones."""

DEFAULT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@attrs.frozen
class Identity:
    """One process, for as long as this machine is up and beyond."""

    pid: int
    birth: str
    """When it began: clock ticks since the boot, and which boot."""

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """None where no such process is alive; one that only waits to be reaped is not."""
        try:
            # Behind the name, which may hold blanks and brackets: proc(5), fields 3 and 22.
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
        """Ask it to end."""
        with self._opened() as descriptor:
            if descriptor is not None:
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)

    def kill(self) -> None:
        """End it, and what it has started in its group."""
        with self._opened() as descriptor, suppress(ProcessLookupError):
            if descriptor is not None:
                os.killpg(self.pid, signal.SIGKILL)

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        """A descriptor of this very process; None if it is dead."""
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
    """Start a process that has nothing of this one but its folder and a socket; returns its id.

    A session of its own, so that no terminal ends it; no input; output appended to `log`; default signals; the
    socket as descriptor 3. Nothing is forked: the program is executed anew.
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
    """The exit code of a child of this process that has ended: negative for a signal. None if it is neither."""
    with suppress(ChildProcessError):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
    return None


async def wait_child(pid: int) -> int | None:
    """Wait for a child's end and reap it; its exit code, None if somebody else has taken that."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    return reap(pid)
