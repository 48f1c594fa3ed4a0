"""Worker processes behind one socket: each one executes the program anew; nothing is forked.

The master binds the address and handles signals. The workers inherit the socket and serve. Two pipes connect them.
Over one, a worker reports that it has started and that it is ready. The other one closes when the master ends for
any reason, so that no worker outlives it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import attrs
import trio

from ..restarts import keep_running
from .signals import note_ignored, signals_to_take

__all__ = ["END", "READY", "STARTED", "Inheritance", "Master", "supervise"]

log = logging.getLogger("trio_agentapp.server")

VARIABLE = "TRIO_AGENTAPP_WORKER"

STARTED, READY, END = b"s", b"r", b"e"
"""The reports of a worker: it listens; it accepts runs; the whole server must drain and end."""


@attrs.frozen
class Inheritance:
    """The file descriptors that a worker inherits from its master."""

    listener: int
    reports: int
    life: int

    @classmethod
    def take(cls) -> Inheritance | None:
        """Return the inheritance of this process, if it is a worker. Processes that it starts are not workers."""
        text = os.environ.pop(VARIABLE, None)
        return None if text is None else cls(*map(int, text.split(",")))

    @staticmethod
    def offered() -> bool:
        """Whether this process is a worker that has not called `take` yet."""
        return VARIABLE in os.environ

    def report(self, what: bytes) -> None:
        """Report `STARTED`, `READY` or `END` to the master."""
        os.write(self.reports, what)

    async def wait_master_gone(self) -> None:
        await trio.lowlevel.wait_readable(self.life)


class Master:
    """Starts worker processes that serve on `listener`, and passes signals on to them."""

    def __init__(self, listener: socket.socket, reports: tuple[int, int], life: tuple[int, int]) -> None:
        self.on_worker_gone: Callable[[int], object] | None = None
        """Called with the process id of each worker that has ended."""
        self.processes: set[trio.Process] = set()
        self.stopping = trio.Event()
        self._reports = reports[0]
        self._inherited = (listener.fileno(), reports[1], life[0])

    @classmethod
    @contextmanager
    def open(cls, listener: socket.socket) -> Iterator[Master]:
        with _pipe() as reports, _pipe() as life:
            yield cls(listener, reports, life)

    async def run_worker(self, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run one worker, `python ARGUMENTS`, to its end, and return its exit code."""
        process = await trio.lowlevel.open_process(
            [sys.executable, *arguments],
            env={**environment, VARIABLE: ",".join(map(str, self._inherited))},
            pass_fds=self._inherited,
            stdin=subprocess.DEVNULL,
            # The worker gets its own process group, so that Ctrl-C in a terminal reaches only the master, which
            # passes it on once.
            process_group=0,
        )
        self.processes.add(process)
        try:
            if self.stopping.is_set():
                process.terminate()
            return await process.wait()
        finally:
            self.processes.discard(process)
            if process.returncode is None:
                process.kill()
            if self.on_worker_gone is not None:
                self.on_worker_gone(process.pid)

    async def next_report(self) -> bytes:
        """Wait for a report of any worker."""
        await trio.lowlevel.wait_readable(self._reports)
        return os.read(self._reports, 1)

    async def pass_signals_on(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Stop all workers at each signal. A second signal stops their runs at once, unless both are SIGHUP."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, *signals_to_take()) as signals:
            task_status.started()
            async for number in signals:
                if not note_ignored(number, stopping=self.stopping.is_set()):
                    self.stop()

    def stop(self) -> None:
        self.stopping.set()
        self.terminate()

    def terminate(self) -> None:
        for process in self.processes:
            process.terminate()


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Open a pipe: its reading and its writing end."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def supervise(
    name: str,
    listener: socket.socket,
    url: str,
    workers: int,
    on_worker_gone: Callable[[int], object] | None,
    say: Callable[[str], object],
) -> int:
    """Run `workers` copies of this program until a signal stops them, and return the exit code.

    `say` gets the line that all are ready.

    A worker that dies after all had started is started again. If one dies before, all are stopped, with code 1.
    """
    with Master.open(listener) as master:
        master.on_worker_gone = on_worker_gone
        supervisor = _Supervisor(master, name, url, workers, say)
        trio.run(supervisor.run)
    return supervisor.code


class _Supervisor:
    """Keeps a number of workers running."""

    def __init__(self, master: Master, name: str, url: str, workers: int, say: Callable[[str], object]) -> None:
        self.code = 0
        self._master = master
        self._name = name
        self._url = url
        self._workers = workers
        self._say = say
        self._all_started = False

    async def run(self) -> None:
        async with trio.open_nursery() as services:
            await services.start(self._master.pass_signals_on)
            services.start_soon(self._receive_reports)
            async with trio.open_nursery() as keepers:
                for number in range(1, self._workers + 1):
                    keepers.start_soon(self._keep, number)
            services.cancel_scope.cancel(reason="all workers have ended")

    async def _receive_reports(self) -> None:
        """Print once that all workers are ready. Stop all of them when one reports `END`."""
        counts = {STARTED: 0, READY: 0, END: 0}
        while True:
            counts[report := await self._master.next_report()] += 1
            self._all_started = self._all_started or counts[STARTED] >= self._workers
            if report == END:
                self._master.stop()
            elif report == READY and counts[READY] == self._workers:
                self._announce()

    def _announce(self) -> None:
        self._say(f"{self._name} is ready on {self._url} (Ctrl-C stops it; {self._workers} workers)")

    async def _keep(self, number: int) -> None:
        """Run a worker, and start it again when it dies, until the master stops."""
        run_one = partial(self._master.run_worker, sys.orig_argv[1:], os.environ)
        code = await keep_running(run_one, self._master.stopping, partial(self._report_death, number))
        # A worker that is still importing the app does not handle the signal, and has nothing to drain.
        if code not in (0, -signal.SIGTERM):
            self.code = 1

    def _report_death(self, number: int, code: int, pause: float) -> None:
        if self._all_started:
            log.error("worker %d ended with code %d and is started again in %g s", number, code, pause)
        else:
            log.critical("worker %d ended with code %d before all had started; the server stops", number, code)
            self.code = 1
            self._master.stop()
