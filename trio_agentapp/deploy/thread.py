"""A service in a thread of this process, with an event loop of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import trio
from hypercorn.typing import ASGIFramework

from ..app import AgentApp
from ..errors import DeployError
from ..protocol.deployment import DeploymentMode, DeploymentState, DeploymentStatus
from ..protocol.exception_groups import leaves
from ..server.config import ServerConfig
from ..server.failures import log_failure
from ..server.server import AppFailed, serve
from .program_exit import restore_exit
from .readiness import look, wait_ready
from .services import FORCE_TIMEOUT, SERVICES, end_service

__all__ = ["ThreadService"]

EXIT_MARGIN = 20.0
"""Seconds beyond drain and cleanup: for connections, last frames, and the user's shutdown code."""


class ThreadService:
    """One app, served until it is stopped. The sockets of `config` are bound already."""

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
        # Reentrant, because a signal handler may take it while its own thread holds it.
        self._lock = threading.RLock()
        self._calls: list[Callable[[], object]] = []
        self._waiting: list[tuple[trio.lowlevel.TrioToken, trio.Event]] = []
        self._ended = False
        self._thread = threading.Thread(target=self._main, name=f"deployment {deploy_id}", daemon=True)

    @property
    def stop_within(self) -> float:
        return self.app.settings.drain_timeout + self.app.settings.cleanup_budget + EXIT_MARGIN

    async def start(self, ready_timeout: float) -> None:
        """Start the thread and wait until the service is ready. If it fails, the thread has ended.

        Raises:
            DeployError: it ended, or was not ready in time.
        """
        if any(isinstance(other, ThreadService) and other.app is self.app for other in SERVICES.values()):
            self._config.close_sockets()
            raise DeployError("this app is deployed in this process already; stop that first")
        self.app.launched = True
        self.app.process_mode = DeploymentMode.DAEMON_THREAD.value
        SERVICES[self.deploy_id] = self
        self._thread.start()
        reason: str | None = "the start was cancelled"
        try:
            reason = await wait_ready(self.url, ready_timeout, self._wait_end)
        finally:
            if reason is not None:
                # There is nothing to drain, and its start-up may hang.
                self._soon(self._scope.cancel)
                with trio.CancelScope(shield=True):
                    await self._end(self.app.settings.cleanup_budget + FORCE_TIMEOUT)
        if reason is not None and self.failure is not None:
            raise DeployError(f"the service could not start: {self.failure}") from self.failure
        if reason is not None:
            raise DeployError(f"the service was not ready in {ready_timeout:g} s: {reason}")

    async def stop(self, timeout: float | None) -> DeploymentStatus:
        """Drain and join the thread. Cancel what has not ended after `timeout` seconds.

        Raises:
            DeployError: it does not end even then; a handler may block its thread.
        """
        self.request_stop()
        seconds = self.stop_within if timeout is None else timeout
        cancelled = await self._end(seconds)
        reason = f"cancelled: it had not ended in {seconds:g} s" if cancelled else None
        return self.status(DeploymentState.STOPPED, reason)

    async def look(self) -> DeploymentStatus:
        why = await look(self.url)
        return self.status(DeploymentState.READY if why is None else DeploymentState.UNREADY, why)

    def status(self, state: DeploymentState, reason: str | None = None) -> DeploymentStatus:
        return DeploymentStatus(
            deploy_id=self.deploy_id,
            state=state,
            url=self.url,
            mode=DeploymentMode.DAEMON_THREAD.value,
            pid=os.getpid(),
            app_name=self.app.app_name,
            started_at=self.started_at,
            reason=reason,
        )

    def request_stop(self, *, hurry: bool = False) -> None:
        self._soon(self._stop.set)
        if hurry:
            self._soon(self._hurry.set)

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    async def _end(self, timeout: float) -> bool:
        """Wait for the end and join the thread; returns whether it had to be cancelled."""
        stuck = f"the service {self.deploy_id} does not end: a handler may block its thread"
        cancelled = await end_service(self._wait_end, lambda: self._soon(self._scope.cancel), timeout, stuck)
        self._thread.join()  # it only has to return
        restore_exit()
        return cancelled

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

    def _soon(self, fn: Callable[[], object]) -> None:
        """Call `fn` in the service's event loop, as soon as it runs."""
        with self._lock:
            if self._token is None:
                self._calls.append(fn)
            else:
                with suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(fn)

    # The methods below run in the thread.

    def _main(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # `start` raises it, and the log shows it
            self.failure = next(leaves(error))
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
            for fn in self._calls:
                fn()
        with self._scope:
            await serve(app, self._config, shutdown_trigger=self._drain)

    async def _drain(self) -> None:
        await self._stop.wait()
        await self.app.drain(self._hurry)
