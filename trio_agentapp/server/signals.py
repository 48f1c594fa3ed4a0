"""The signals that a server takes beside SIGTERM and Ctrl-C: by default each would end it on the spot.

SIGHUP drains, as SIGTERM does: the terminal is gone. SIGUSR1 and SIGUSR2 do nothing. Whoever has taken one already
keeps it: `nohup`, the user's program, `faulthandler.register`.
"""

from __future__ import annotations

import logging
import signal
from contextlib import suppress
from pathlib import Path

__all__ = ["note_ignored", "signals_to_take"]

log = logging.getLogger(__name__)

TAKEN = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2) if hasattr(signal, "SIGHUP") else ()


def signals_to_take() -> list[signal.Signals]:
    """Those of SIGHUP, SIGUSR1 and SIGUSR2 that nobody handles or ignores."""
    caught = _caught_outside_python()
    return [
        number for number in TAKEN if signal.getsignal(number) is signal.SIG_DFL and not caught >> (number - 1) & 1
    ]


def note_ignored(number: int, *, stopping: bool = False) -> bool:
    """Whether this signal does nothing; of SIGUSR1 and SIGUSR2 that is logged.

    `stopping`: the end has begun already. A terminal that is closed may send several SIGHUP: no wish to hurry.
    """
    if number not in TAKEN:
        return False
    if number == signal.SIGHUP:
        return stopping
    log.warning("%s does nothing here; SIGTERM drains and ends this process", signal.Signals(number).name)
    return True


def _caught_outside_python() -> int:
    """The mask of signals with a handler, be it one of C code, which Python does not know; 0 outside Linux."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("SigCgt:")).split()[1], 16)
    return 0
