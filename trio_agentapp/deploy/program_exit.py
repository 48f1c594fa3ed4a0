"""Drains the services in threads of this process when the program ends, by itself or by a signal."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from types import FrameType

from ..server.signals import note_ignored, signals_to_take
from .services import SERVICES

__all__ = ["drain_at_exit", "restore_exit"]


def drain_at_exit() -> None:
    """Let the services of this process drain when it ends. Called in the thread that deploys.

    Without a handler SIGTERM and SIGHUP end a program at once. Here it drains first and then ends by the same
    signal. A second SIGTERM stops the live runs at once. SIGUSR1 and SIGUSR2 do nothing.
    """
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        handler = _Drainer()
        for number in (signal.SIGTERM, *signals_to_take()):
            signal.signal(number, handler)
            handler.taken.append(number)


def restore_exit() -> None:
    """Undo `drain_at_exit` if no service is left."""
    if SERVICES:
        return
    atexit.unregister(_at_exit)
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is threading.main_thread() and isinstance(handler, _Drainer):
        for number in handler.taken:
            if signal.getsignal(number) is handler:
                signal.signal(number, signal.SIG_DFL)


class _Drainer:
    def __init__(self) -> None:
        self.taken: list[signal.Signals] = []
        self._before = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if note_ignored(number, stopping=self._before):
            return
        hurry, self._before = self._before, True
        _end_all(hurry=hurry)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _at_exit() -> None:
    try:
        _end_all(hurry=False)
    except KeyboardInterrupt:
        _end_all(hurry=True)


def _end_all(*, hurry: bool) -> None:
    services = tuple(SERVICES.values())
    for service in services:
        service.request_stop(hurry=hurry)
    for service in services:
        service.join(service.stop_within)
