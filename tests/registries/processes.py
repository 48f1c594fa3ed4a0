"""A process with a registered agent, to be killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from .conftest import NAME

PROGRAM = Path(__file__).parent / "agent.py"


@asynccontextmanager
async def registered_process(kind: str, place: str, port: int, name: str = NAME) -> AsyncIterator[trio.Process]:
    """Start a process; the block begins when its agent is registered. It is killed at the end."""
    command = [sys.executable, str(PROGRAM), kind, place, str(port), name]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with trio.fail_after(30):
            assert await process.stdout.receive_some() == b"registered\n"
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()
