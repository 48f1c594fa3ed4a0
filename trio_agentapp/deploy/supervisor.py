"""Keeps a detached service running: `python -m trio_agentapp.deploy.supervisor HOME ID [ARGUMENTS]`.

It starts `service.py` on the inherited socket, starts it again when it crashes, and keeps its log short. The socket
stays open meanwhile, so clients wait and are not refused. A service that ends with 0 was stopped, and one that ends
before its deployment has succeeded has failed; then this ends, too, with the same code.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

import trio

from ..errors import DeployError
from ..restarts import keep_running
from .processes import LISTENER, Identity, spawn, wait_child
from .records import Records

__all__ = ["main"]

LOG_BYTES = 10 * 1024 * 1024
"""A log that is longer becomes `.log.1`, and replaces the former one. So a service has at most about 20 MiB."""

LOG_PAUSE = 5.0
"""Seconds between two looks at the length of the log."""


def main() -> None:
    home, deploy_id, *args = sys.argv[1:]
    records = Records(home)
    records.update(deploy_id, supervisor=Identity.own())
    sys.exit(trio.run(_Supervisor(records, deploy_id, home, args).run))


class _Supervisor:
    def __init__(self, records: Records, deploy_id: str, home: str, args: list[str]) -> None:
        self._records = records
        self._deploy_id = deploy_id
        self._command = [sys.executable, "-m", f"{__package__}.service", home, deploy_id, *args]
        self._stopping = trio.Event()
        self._process: Identity | None = None
        self._code = 0

    async def run(self) -> int:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._pass_signals_on)
            nursery.start_soon(self._keep_log_short)
            await keep_running(self._run_one, self._stopping, self._report_death)
            nursery.cancel_scope.cancel(reason="the service has ended")
        return self._code

    async def _run_one(self) -> int:
        pid = spawn(self._command, os.environ, log=self._records.log(self._deploy_id), listener=LISTENER)
        self._process = Identity.of(pid)
        if self._stopping.is_set() and self._process is not None:
            self._process.terminate()  # the signal came before there was a process
        code = await wait_child(pid)
        self._process = None
        self._code = 1 if code is None else code if code >= 0 else 128 - code
        return self._code

    def _report_death(self, code: int, pause: float) -> None:
        if code == 0 or not self._accepted():
            self._stopping.set()
            return
        sys.stderr.write(f"The service ended with code {code}; it is started again in {pause:g} s.\n")
        sys.stderr.flush()

    def _accepted(self) -> bool:
        """Whether the deployment has succeeded, or its command was killed while it waited and cannot say so.

        Without a record it has failed, or is being stopped.
        """
        with suppress(DeployError):
            record = self._records.get(self._deploy_id)
            return record.ready or not record.launcher.alive
        return False

    async def _pass_signals_on(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                self._stopping.set()
                if self._process is not None:
                    self._process.terminate()

    async def _keep_log_short(self) -> None:
        path = self._records.log(self._deploy_id)
        while True:
            await trio.sleep(LOG_PAUSE)
            with suppress(FileNotFoundError):
                if path.stat().st_size > LOG_BYTES:
                    await trio.to_thread.run_sync(_rotate, path)


def _rotate(path: Path) -> None:
    """Copy the log, then empty it: the service has it open for appending. A line in between may be lost."""
    shutil.copy(path, path.with_suffix(".log.1"))
    os.truncate(path, 0)


if __name__ == "__main__":
    main()
