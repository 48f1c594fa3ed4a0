"""Several worker processes behind one port: each is the program, executed anew, never a fork.

The master binds the address and listens to signals; the workers inherit the socket and serve. Two pipes tie them
together: over one a worker says that it has started, and that it is ready; the other ends when the master does,
whatever ended it, so that no worker outlives it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager

import attrs
import trio

from .signals import note_ignored, signals_to_take

__all__ = ["READY", "Inheritance", "supervise"]

log = logging.getLogger(__name__)

VARIABLE = "TRIO_AGENTAPP_WORKER"

STARTED, READY = b"s", b"r"
"""What a worker says over its pipe: it listens, or it takes runs."""

RESTART_AT_FIRST, RESTART_AT_LAST = 0.5, 30.0
"""Seconds before a worker that died is started again: doubled each time, until one has lived for the longer."""


@attrs.frozen
class Inheritance:
    """What a worker has from its master: file descriptors."""

    listener: int
    ready: int
    life: int

    @classmethod
    def take(cls) -> Inheritance | None:
        """This process's, if it is a worker; taken once, so that what it starts itself is none."""
        text = os.environ.pop(VARIABLE, None)
        return None if text is None else cls(*map(int, text.split(",")))

    @staticmethod
    def offered() -> bool:
        """Whether this process is a worker, as long as it has not taken what it has from its master."""
        return VARIABLE in os.environ

    def tell_started(self) -> None:
        os.write(self.ready, STARTED)

    def tell_ready(self) -> None:
        os.write(self.ready, READY)

    async def wait_master_gone(self) -> None:
        await trio.lowlevel.wait_readable(self.life)


def supervise(name: str, listener: socket.socket, url: str, workers: int) -> int:
    """Run `workers` copies of this program until told to stop; returns the exit code.

    A worker that dies after all had started is started again; one that dies before ends them all, with code 1.
    SIGTERM and SIGINT are passed on; each further one too, so that a second one hurries. The first SIGHUP counts as
    one of them.
    """
    with ExitStack() as pipes:
        ready = pipes.enter_context(_pipe())
        life = pipes.enter_context(_pipe())
        master = _Master(name, listener, url, workers, ready, life)
        trio.run(master.run)
    return master.code


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Reading and writing end, closed in the end."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


class _Master:
    def __init__(
        self,
        name: str,
        listener: socket.socket,
        url: str,
        workers: int,
        ready: tuple[int, int],
        life: tuple[int, int],
    ) -> None:
        self.code = 0
        self._name = name
        self._listener = listener
        self._url = url
        self._workers = workers
        self._ready = ready
        self._life = life
        self._processes: set[trio.Process] = set()
        self._all_started = False
        self._stopping = trio.Event()

    async def run(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, *signals_to_take()) as signals:
            async with trio.open_nursery() as services, trio.open_nursery() as keepers:
                services.start_soon(self._pass_on, signals)
                services.start_soon(self._announce)
                for number in range(1, self._workers + 1):
                    keepers.start_soon(self._keep, number, services.cancel_scope)
                keepers.start_soon(self._stopping.wait)
            # Leaving `keepers` means that every worker has ended; then there is nothing to pass on.

    async def _pass_on(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if not note_ignored(number, stopping=self._stopping.is_set()):
                self._stop_all()

    def _stop_all(self) -> None:
        self._stopping.set()
        for process in self._processes:
            process.send_signal(signal.SIGTERM)

    async def _announce(self) -> None:
        """Say once that all are ready. From when all have started on, one that dies is started again."""
        counts = {STARTED: 0, READY: 0}
        while counts[READY] < self._workers:
            await trio.lowlevel.wait_readable(self._ready[0])
            counts[os.read(self._ready[0], 1)] += 1
            self._all_started = counts[STARTED] >= self._workers
        sys.stderr.write(f"{self._name} is ready on {self._url} (Ctrl-C stops it; {self._workers} workers)\n")
        sys.stderr.flush()

    async def _keep(self, number: int, services: trio.CancelScope) -> None:
        """One worker and its successors."""
        pause = RESTART_AT_FIRST
        while not self._stopping.is_set():
            began = trio.current_time()
            code = await self._run_one()
            if self._stopping.is_set():
                self.code = self.code or (1 if code else 0)
            elif not self._all_started:
                log.critical("worker %d ended with code %d before all had started; the server stops", number, code)
                self.code = 1
                self._stop_all()
            else:
                log.error("worker %d ended with code %d and is started again in %g s", number, code, pause)
                with trio.move_on_after(pause):
                    await self._stopping.wait()
                lived = trio.current_time() - began
                pause = RESTART_AT_FIRST if lived > RESTART_AT_LAST else min(pause * 2, RESTART_AT_LAST)
        if not self._processes:
            services.cancel(reason="all workers have ended")

    async def _run_one(self) -> int:
        handed = (self._listener.fileno(), self._ready[1], self._life[0])
        process = await trio.lowlevel.open_process(
            [sys.executable, *sys.orig_argv[1:]],
            env={**os.environ, VARIABLE: ",".join(map(str, handed))},
            pass_fds=handed,
            stdin=subprocess.DEVNULL,
            # A group of its own: Ctrl-C in a terminal reaches the master only, and from there each worker once.
            process_group=0,
        )
        self._processes.add(process)
        try:
            if self._stopping.is_set():
                process.send_signal(signal.SIGTERM)
            return await process.wait()
        finally:
            self._processes.discard(process)
            if process.returncode is None:
                process.kill()
