"""Ends the processes that asyncio code of a run has started, and their descendants, when the run ends."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from ..runs.process import GRACE, KILLED_WITHIN, POLL, group_is_alive, signal_group, terminate_group

__all__ = ["ProcessGroup", "ProcessLoop"]

logger = logging.getLogger("trio_agentapp.frameworks")


class ProcessGroup:
    """A process group: a process that leads it, and the processes that this one has started."""

    def __init__(self, transport: asyncio.SubprocessTransport) -> None:
        self._transport = transport
        self.pid = transport.get_pid()

    @property
    def is_alive(self) -> bool:
        return group_is_alive(self.pid, leader_ended=self._transport.get_returncode() is not None)

    def kill(self) -> None:
        signal_group(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Send SIGTERM, after `GRACE` seconds SIGKILL, and wait until all processes of the group have ended."""
        terminate_group(self.pid)
        if not await self._is_gone_within(GRACE):
            self.kill()
            if not await self._is_gone_within(KILLED_WITHIN):
                logger.error("processes of the group %d could not be ended", self.pid)
        self._transport.close()

    async def _is_gone_within(self, seconds: float) -> bool:
        until = asyncio.get_running_loop().time() + seconds
        while self.is_alive and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110  no event
            await asyncio.sleep(POLL)
        return not self.is_alive


class ProcessLoop(asyncio.SelectorEventLoop):
    """An event loop that starts each process of a run in its own process group, and reports it."""

    def __init__(self, note: Callable[[], Callable[[ProcessGroup], object] | None]) -> None:
        """`note()` returns a function that receives each process of the current task; None outside of a run."""
        super().__init__()
        self._note = note

    async def subprocess_exec(self, *args: Any, **options: Any) -> Any:
        return await self._start(super().subprocess_exec, *args, **options)

    async def subprocess_shell(self, *args: Any, **options: Any) -> Any:
        return await self._start(super().subprocess_shell, *args, **options)

    async def _start(self, start: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        note = self._note()
        if note is None:
            return await start(*args, **options)
        transport, protocol = await start(*args, **{**options, "start_new_session": True})
        note(ProcessGroup(transport))
        return transport, protocol
