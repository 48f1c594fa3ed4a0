"""A service in a process of its own, which outlives the one that starts it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import trio

from ..errors import DeployError
from ..protocol.deployment import DeploymentState, DeploymentStatus
from .processes import Identity, reap, spawn, wait_child
from .readiness import look, wait_ready
from .records import Record, Records
from .services import end_service

__all__ = ["DetachedService"]

FAILED_TIMEOUT = 5.0
"""Seconds to end for a service that did not become ready. It has no runs to drain."""


class DetachedService:
    """A service as its record describes it."""

    def __init__(self, records: Records, record: Record) -> None:
        self.deploy_id = record.deploy_id
        self.record = record
        self._records = records

    async def start(
        self,
        listener: socket.socket,
        environment: Mapping[str, str],
        args: Sequence[str],
        ready_timeout: float,
        *,
        restart: bool = False,
    ) -> None:
        """Start the process and wait until it is ready; `record` is then complete.

        With `restart`, a supervisor starts it, and starts it again when it crashes later.

        If it fails, the process is ended and only its log is left.

        Raises:
            DeployError: it ended, or was not ready within `ready_timeout` seconds; with the end of its log.
        """
        home = str(self._records.folder.parent)
        program = "supervisor" if restart else "service"
        command = [sys.executable, "-m", f"{__package__}.{program}", home, self.deploy_id, *args]
        self._records.write(self.record)
        pid = None
        ready = False
        try:
            with listener:
                # Unbuffered, because a process that is killed loses what is still in its buffer.
                complete = {"PYTHONUNBUFFERED": "1", **environment}
                log = self._records.log(self.deploy_id)
                pid = spawn(command, complete, log=log, listener=listener.fileno())
            await self._wait_ready(pid, ready_timeout)
            self.record = self._records.update(self.deploy_id, ready=True)
            ready = True
        except OSError as error:
            raise DeployError(f"{sys.executable} cannot be started: {error.strerror}") from error
        finally:
            if not ready:
                with trio.CancelScope(shield=True):
                    if pid is not None and (process := Identity.of(pid)) is not None:
                        await self._end(process, FAILED_TIMEOUT)
                self._records.forget(self.deploy_id)

    async def _wait_ready(self, pid: int, ready_timeout: float) -> None:
        code: int | None = None
        died = False

        async def wait_end() -> None:
            nonlocal code, died
            code = await wait_child(pid)
            died = True

        reason = await wait_ready(self.record.url, ready_timeout, wait_end)
        log = f"Its log, {self.record.log}, ends with:\n{self.record.log_tail()}"
        if died:
            raise DeployError(f"the service ended before it was ready ({_exit_of(code)}). {log}")
        if reason is not None:
            raise DeployError(f"the service was not ready in {ready_timeout:g} s: {reason}. {log}")

    async def _end(self, process: Identity, timeout: float) -> bool:
        """Drain and end the process, which may be the supervisor; returns whether it had to be killed."""

        def kill() -> None:
            process.kill()
            with suppress(DeployError):  # no record: the service has ended
                if (service := self._records.get(self.deploy_id).process) is not None:
                    service.kill()

        process.terminate()
        stuck = f"process {process.pid} was killed and does not end"
        return await end_service(process.wait_end, kill, timeout, stuck)

    async def look(self) -> DeploymentStatus:
        record = self.record
        for process in filter(None, (record.supervisor, record.process)):
            reap(process.pid)
        state = record.state
        if state is None:
            why = await look(record.url)
            if why is None:
                return record.status(DeploymentState.READY)
            state = record.state  # it may have died meanwhile
            if state is None:
                return record.status(DeploymentState.UNREADY, why)
        if state is DeploymentState.STARTING and record.process is not None:
            return record.status(state, f"it crashed and is being started again; its log is {record.log}")
        if state is DeploymentState.DEAD:
            return record.status(state, f"it ended by itself; its log is {record.log}")
        return record.status(state)

    async def stop(self, timeout: float | None) -> DeploymentStatus:
        record = self.record
        if record.state is DeploymentState.STARTING and not record.supervised:
            raise DeployError(f"{record.deploy_id} is being started; try again in a moment")
        reason = None
        process = record.supervisor if record.supervised else record.process
        if process is None or not process.alive:
            if process is not None:
                reap(process.pid)
            reason = f"it had died before; its log is {record.log}"
        else:
            seconds = record.stop_within if timeout is None else timeout
            if await self._end(process, seconds):
                reason = f"killed: it had not ended in {seconds:g} s"
        self._records.forget(record.deploy_id)
        return record.status(DeploymentState.STOPPED, reason)


def _exit_of(code: int | None) -> str:
    if code is None:
        return "unknown exit code"
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
