"""Handles SIGHUP, SIGUSR1 and SIGUSR2, each of which would by default end a server at once.

SIGHUP drains, as SIGTERM does: the terminal is gone. SIGUSR1 and SIGUSR2 do nothing. A signal that already has a
handler keeps it: `nohup`, the user's program, `faulthandler.register`.
"""

from __future__ import annotations

import logging
import signal
from contextlib import suppress
from pathlib import Path

__all__ = ["note_ignored", "signals_to_take"]

log = logging.getLogger("trio_agentapp.server")

TAKEN = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2) if hasattr(signal, "SIGHUP") else ()


def signals_to_take() -> list[signal.Signals]:
    """Return those of SIGHUP, SIGUSR1 and SIGUSR2 that have no handler and are not ignored."""
    caught = _caught_outside_python()
    return [
        number for number in TAKEN if signal.getsignal(number) is signal.SIG_DFL and not caught >> (number - 1) & 1
    ]


def note_ignored(number: int, *, stopping: bool = False) -> bool:
    """Return whether this signal does nothing, and log it if it is SIGUSR1 or SIGUSR2.

    With `stopping`, SIGHUP does nothing: a terminal that is closed may send several, which must not hurry the
    drain.
    """
    if number not in TAKEN:
        return False
    if number == signal.SIGHUP:
        return stopping
    log.warning("%s does nothing here; SIGTERM drains and ends this process", signal.Signals(number).name)
    return True


def _caught_outside_python() -> int:
    """Return the mask of all signals with a handler, also of those that C code has set. 0 outside Linux."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("SigCgt:")).split()[1], 16)
    return 0
