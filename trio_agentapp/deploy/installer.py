"""Runs pip."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import trio

from ..errors import DeployError

__all__ = ["run_installer"]


async def run_installer(
    command: Sequence[str], *, timeout: float, late: str, fault: str, folder: Path | None = None
) -> None:
    """Run pip, or another tool whose errors look like those of pip, in `folder`.

    Raises:
        DeployError: it did not end within `timeout` seconds, with `late`; or it failed, with `fault` and why.
    """
    with trio.move_on_after(timeout) as scope:
        done = await trio.run_process(
            command, cwd=folder, capture_stdout=True, capture_stderr=True, check=False, stdin=subprocess.DEVNULL
        )
    if scope.cancelled_caught:
        raise DeployError(late)
    if done.returncode:
        lines = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-3:]
        raise DeployError(f"{fault}: {'; '.join(errors)}")
