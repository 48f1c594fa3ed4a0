"""A service in a process of its own: started, watched until it is ready, ended."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence

import trio

from ..errors import DeployError
from ..protocol.deployment import DeploymentState, DeploymentStatus
from .processes import Identity, reap, spawn, wait_child
from .readiness import Reason, unready_reason, wait_ready
from .records import Record, Records

__all__ = ["look", "start", "stop"]

ANSWER_PATIENCE = 2.0
"""For the answer to one question of how it is."""

FAILED_PATIENCE = 5.0
"""For a service that did not become ready to end by itself: it has no runs to drain."""

KILLED_PATIENCE = 10.0
"""For the kernel to end what was killed."""


async def start(
    records: Records,
    record: Record,
    listener: socket.socket,
    *,
    environment: Mapping[str, str],
    args: Sequence[str],
    ready_timeout: float,
) -> Record:
    """Returns the record as the service has completed it. Whatever goes wrong, nothing of it stays but its log.

    Raises:
        DeployError: it ended, or was not ready within `ready_timeout` seconds; with the end of its log.
    """
    home = str(records.folder.parent)
    command = [sys.executable, "-m", f"{__package__}.service", home, record.deploy_id, *args]
    records.write(record)
    pid = None
    ready = False
    try:
        with listener:
            # Unbuffered, or what is printed last is lost with a process that is killed.
            complete = {"PYTHONUNBUFFERED": "1", **environment}
            pid = spawn(command, complete, log=records.log(record.deploy_id), listener=listener.fileno())
        await _wait_ready(record, pid, ready_timeout)
        ready = True
    except OSError as error:
        raise DeployError(f"{sys.executable} cannot be started: {error.strerror}") from error
    finally:
        if not ready:
            with trio.CancelScope(shield=True):
                if pid is not None:
                    await _end(Identity.of(pid), FAILED_PATIENCE)
            records.forget(record.deploy_id)
    return records.get(record.deploy_id)


async def _wait_ready(record: Record, pid: int, ready_timeout: float) -> None:
    reason = Reason()
    code: int | None = None
    died = False

    async def watch() -> None:
        nonlocal code, died
        code = await wait_child(pid)
        died = True
        nursery.cancel_scope.cancel(reason="the service has ended")

    with trio.move_on_after(ready_timeout) as patience:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await wait_ready(record.url, reason)
            nursery.cancel_scope.cancel(reason="the service is ready")
    told = f"Its log, {record.log}, ends with:\n{record.last_words()}"
    if died:
        raise DeployError(f"the service ended before it was ready ({_manner(code)}). {told}")
    if patience.cancelled_caught:
        raise DeployError(f"the service was not ready in {ready_timeout:g} s: {reason.text}. {told}")


def _manner(code: int | None) -> str:
    if code is None:
        return "nobody knows how"
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


async def look(record: Record) -> DeploymentStatus:
    if record.process is not None:
        reap(record.process.pid)
    state = record.state
    if state is DeploymentState.DEAD:
        return record.status(state, f"it ended without having been told to; its log is {record.log}")
    if state is not None:
        return record.status(state)
    why: str | None = f"no answer in {ANSWER_PATIENCE:g} s"
    with trio.move_on_after(ANSWER_PATIENCE):
        why = await unready_reason(record.url)
    if why is not None and record.state is DeploymentState.DEAD:
        return await look(record)  # it died meanwhile
    return record.status(DeploymentState.READY if why is None else DeploymentState.UNREADY, why)


async def stop(records: Records, record: Record, timeout: float | None) -> DeploymentStatus:
    """Drain, and kill what has not ended after `timeout` seconds; None: what its own settings allow it."""
    if record.state is DeploymentState.STARTING:
        raise DeployError(f"{record.deploy_id} is just being started; try again in a moment")
    if record.process is None or not record.process.alive:
        if record.process is not None:
            reap(record.process.pid)
        records.forget(record.deploy_id)
        return record.status(DeploymentState.STOPPED, f"it had died before; its log is {record.log}")
    patience = record.stop_within if timeout is None else timeout
    killed = await _end(record.process, patience)
    records.forget(record.deploy_id)
    return record.status(DeploymentState.STOPPED, f"killed: it had not ended in {patience:g} s" if killed else None)


async def _end(process: Identity | None, patience: float) -> bool:
    """Ask, wait, insist. Whether that was necessary."""
    if process is None:
        return False
    process.terminate()
    with trio.move_on_after(patience):
        await process.wait_end()
        return False
    process.kill()
    with trio.move_on_after(KILLED_PATIENCE):
        await process.wait_end()
        return True
    raise DeployError(f"process {process.pid} was killed and does not end")
