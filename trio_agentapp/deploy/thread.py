"""A service in a thread of this process, with an event loop of its own; joined when it is stopped.

The program around it goes on with what it does. When it ends, or is told to by SIGTERM, the services drain first.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import trio
from hypercorn.typing import ASGIFramework

from ..app import AgentApp
from ..errors import DeployError
from ..protocol.deployment import DeploymentMode, DeploymentState, DeploymentStatus
from ..server.config import ServerConfig
from ..server.failures import log_failure
from ..server.server import AppFailed, serve
from ..server.signals import note_ignored, signals_to_take
from .readiness import Reason, unready_reason, wait_ready
from .running import SERVICES

__all__ = ["ThreadService", "guard_the_end"]

LEAVING = 20.0
"""Seconds beyond drain and cleanup: connections, last frames, the user's shutdown code."""

INSISTING = 10.0
"""For what was cancelled after that."""


class ThreadService:
    """One app, served until it is stopped. Made with its sockets bound."""

    def __init__(self, deploy_id: str, app: AgentApp, config: ServerConfig, url: str) -> None:
        self.deploy_id = deploy_id
        self.app = app
        self.url = url
        self.started_at = time.time()
        self.failure: BaseException | None = None
        self._config = config
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop = trio.Event()
        self._hurry = trio.Event()
        self._scope = trio.CancelScope()
        # Reentrant: a signal handler comes here too, in the middle of whatever its thread is doing.
        self._lock = threading.RLock()
        self._wishes: list[Callable[[], object]] = []
        self._waiting: list[tuple[trio.lowlevel.TrioToken, trio.Event]] = []
        self._ended = False
        self._thread = threading.Thread(target=self._main, name=f"deployment {deploy_id}", daemon=True)

    @property
    def stop_within(self) -> float:
        return self.app.settings.drain_timeout + self.app.settings.cleanup_budget + LEAVING

    async def start(self, ready_timeout: float) -> None:
        """Returns when it is ready; whatever goes wrong, it is over then.

        Raises:
            DeployError: it ended, or was not ready in time.
        """
        if any(service.app is self.app for service in SERVICES.values()):
            self._config.close_sockets()
            raise DeployError("this app is deployed in this process already; stop that first")
        # Before the thread is: its failure would find nobody.
        self.app.launched = True
        self.app.process_mode = DeploymentMode.DAEMON_THREAD.value
        SERVICES[self.deploy_id] = self
        self._thread.start()
        reason = Reason()
        ready = False
        try:
            with trio.move_on_after(ready_timeout):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._cancel_at_end, nursery.cancel_scope)
                    await wait_ready(self.url, reason)
                    ready = True
                    nursery.cancel_scope.cancel(reason="the service is ready")
        finally:
            if not ready:
                # Nothing to drain, and its start-up may hang.
                self._soon(self._scope.cancel)
                with trio.CancelScope(shield=True):
                    await self._join(self.app.settings.cleanup_budget + INSISTING)
        if not ready and self.failure is not None:
            raise DeployError(f"the service could not start: {self.failure}") from self.failure
        if not ready:
            raise DeployError(f"the service was not ready in {ready_timeout:g} s: {reason.text}")

    async def stop(self, timeout: float | None) -> DeploymentStatus:
        """Drain, end, join the thread; what has not ended after `timeout` seconds is cancelled.

        Raises:
            DeployError: not even then did it end; a handler may hold its thread.
        """
        self.request_stop()
        patience = self.stop_within if timeout is None else timeout
        insisted = await self._join(patience)
        reason = f"cancelled: it had not ended in {patience:g} s" if insisted else None
        return self.status(DeploymentState.STOPPED, reason)

    async def look(self) -> DeploymentStatus:
        why: str | None = "it does not answer"
        with trio.move_on_after(2):
            why = await unready_reason(self.url)
        return self.status(DeploymentState.READY if why is None else DeploymentState.UNREADY, why)

    def status(self, state: DeploymentState, reason: str | None = None) -> DeploymentStatus:
        return DeploymentStatus(
            deploy_id=self.deploy_id,
            state=state,
            url=self.url,
            mode=DeploymentMode.DAEMON_THREAD.value,
            pid=os.getpid(),
            app_name=self.app.app_name,
            entrypoint="",
            log="",
            started_at=self.started_at,
            reason=reason,
        )

    def request_stop(self, *, hurry: bool = False) -> None:
        """Begin the drain; with `hurry`, do not wait for live runs. From any thread, at any time."""
        self._soon(self._stop.set)
        if hurry:
            self._soon(self._hurry.set)

    def join(self, seconds: float) -> None:
        """Wait for the end, blocking."""
        self._thread.join(seconds)

    async def _join(self, patience: float) -> bool:
        """Wait, then cancel; returns whether that was necessary. The thread is joined then."""
        insisted = False
        with trio.move_on_after(patience) as waiting:
            await self._wait_end()
        if waiting.cancelled_caught:
            insisted = True
            self._soon(self._scope.cancel)
            with trio.move_on_after(INSISTING) as waiting:
                await self._wait_end()
            if waiting.cancelled_caught:
                raise DeployError(f"the service {self.deploy_id} does not end: a handler may hold its thread")
        self._thread.join()  # it has only to return
        leave_the_end()
        return insisted

    async def _wait_end(self) -> None:
        entry = (trio.lowlevel.current_trio_token(), trio.Event())
        with self._lock:
            if self._ended:
                return
            self._waiting.append(entry)
        try:
            await entry[1].wait()
        finally:
            with self._lock:
                if entry in self._waiting:
                    self._waiting.remove(entry)

    async def _cancel_at_end(self, scope: trio.CancelScope) -> None:
        await self._wait_end()
        scope.cancel(reason="the service has ended")

    def _soon(self, fn: Callable[[], object]) -> None:
        """Call `fn` in the service's loop, as soon as there is one."""
        with self._lock:
            if self._token is None:
                self._wishes.append(fn)
            else:
                with suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(fn)

    # In the thread.

    def _main(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # a thread has nobody to raise to; `start` and the log tell
            self.failure = _single(error)
            if not isinstance(self.failure, AppFailed):
                log_failure(f"The deployment {self.deploy_id} failed", error)
        finally:
            self._config.close_sockets()
            self.app.launched, self.app.process_mode = False, None
            SERVICES.pop(self.deploy_id, None)
            with self._lock:
                self._ended = True
                for token, event in self._waiting:
                    with suppress(trio.RunFinishedError):
                        token.run_sync_soon(event.set)

    async def _serve(self) -> None:
        app: ASGIFramework = self.app
        with self._lock:
            self._token = trio.lowlevel.current_trio_token()
            for wish in self._wishes:
                wish()
        with self._scope:
            await serve(app, self._config, shutdown_trigger=self._drain)

    async def _drain(self) -> None:
        await self._stop.wait()
        await self.app.drain(self._hurry)


def _single(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def guard_the_end() -> None:
    """Let the services of this process drain when it ends. Called in the thread that deploys.

    SIGTERM and SIGHUP would end a program on the spot that has no handler of its own: then it drains first, and
    dies by the same signal. A second SIGTERM hurries. SIGUSR1 and SIGUSR2 do nothing.
    """
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        handler = _Drainer()
        for number in (signal.SIGTERM, *signals_to_take()):
            signal.signal(number, handler)
            handler.taken.append(number)


def leave_the_end() -> None:
    """Take back what `guard_the_end` has set up, once no service is left."""
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
