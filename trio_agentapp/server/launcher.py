"""Serves one app in this process: signals, the ready line, a watchdog, and an exit code.

The first SIGTERM or SIGINT starts the drain, with the listener still open. The second one stops the live runs at
once. The third one ends the process. SIGHUP only starts the drain: a terminal that is closed may send several.

A watchdog ends the process if it is still alive some time after the drain. So it ends a process whose handler
blocks in a thread: a task waits for its thread without limit. Trio's threads are daemons, so an abandoned thread
does not keep the process alive.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Protocol

import trio
from hypercorn.config import Sockets
from hypercorn.typing import ASGIFramework

from ..protocol.exception_groups import leaves
from .config import BindError, ServerConfig, bind_address
from .failures import log_failure
from .server import AppFailed, serve
from .signals import note_ignored, signals_to_take
from .tcp_connection import Connection
from .tls import TLS
from .workers import END, READY, STARTED, Inheritance, supervise

__all__ = ["Launchable", "imported_by_launcher", "launch"]

log = logging.getLogger("trio_agentapp.server")

WATCHDOG_MARGIN = 10.0
"""Seconds beyond the app's cleanup budget: for last frames, connections, and the user's shutdown code."""

READY_POLL = 0.1
"""Seconds between two checks whether the app is ready, until it is ready for the first time."""

EXIT_BY_FORCE = 130
"""The exit code that shells use for a process that was interrupted."""

LAUNCHERS = ("celery", "trio_agentapp.cli", "trio_agentapp.app.loading")
IMPORTERS = ("importlib._bootstrap", "importlib._bootstrap_external", "runpy")


class Launchable(Protocol):
    """What `launch` needs of an app, in addition to ASGI and `Servable`."""

    app_name: str
    node_id: str
    cleanup_budget: float
    read_timeout: float
    max_connections: int
    launched: bool
    shutdown_event: Any
    connection_count: Callable[[], int] | None
    """Set by the launcher: returns the number of open connections."""
    shut_down: Callable[[], object] | None
    """Set by the launcher: drains and ends the server, all its workers included."""
    page_path: str | None
    """The path of the page that people open; None if there is none."""

    async def drain(self, hurry: trio.Event) -> None:
        """See `Servable.drain`."""

    def unready_reason(self) -> str | None:
        """Why this node should get no new runs; None if it is ready."""


def launch(
    app: Launchable,
    *,
    host: str,
    port: int,
    tls: TLS | None = None,
    workers: int = 1,
    listener: int | None = None,
    on_worker_gone: Callable[[int], object] | None = None,
) -> int:
    """Serve until a signal stops it, and return the exit code. Must be called in the main thread.

    `listener` is the descriptor of a socket that already listens on the address. `on_worker_gone` is called with
    the process id of each worker that has ended.

    The exit code is 0 after a drain that SIGTERM or SIGINT started. It is 1 if the start-up failed, the port is
    busy, a background task crashed, or the process did not end in time.
    """
    config = ServerConfig()
    config.header_timeout = config.ssl_handshake_timeout = app.read_timeout
    config.max_connections = app.max_connections
    inherited = Inheritance.take()
    if inherited is not None:
        listener = inherited.listener
    config.bind = [bind_address(host, port) if listener is None else f"fd://{listener}"]
    config.use_tls(tls)
    watchdog = _Watchdog(app.cleanup_budget + WATCHDOG_MARGIN)
    # The lifespan then does not handle signals.
    app.launched = True
    try:
        sockets = config.create_sockets()
        if workers > 1 and inherited is None:
            return _supervise(app, sockets, workers, on_worker_gone)
        trio.run(_Launch(app, config, watchdog, inherited).run)
    except* AppFailed:
        return_code = 1  # the lifespan has logged the reason
    except* BindError as errors:
        for error in leaves(errors):
            log.critical("%s", error)
        return_code = 1
    except* KeyboardInterrupt:
        return_code = EXIT_BY_FORCE  # a signal before or after this launcher handles them
    except* BaseException as errors:  # for instance SystemExit in a task
        log_failure("The server failed", errors)
        return_code = 1
    else:
        return_code = 0
    finally:
        config.close_sockets()
        watchdog.stand_down()
    return return_code


def _say(app: Launchable, line: str) -> None:
    """Print a line for people. If the log is JSON, log the line instead, so that every line of the log is JSON."""
    if getattr(app, "log_format", "text") == "json":
        log.info("%s", line)
    else:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _supervise(
    app: Launchable, sockets: Sockets, workers: int, on_worker_gone: Callable[[int], object] | None
) -> int:
    [listener] = (*sockets.secure_sockets, *sockets.insecure_sockets)
    scheme = "https" if sockets.secure_sockets else "http"
    url = f"{scheme}://{bind_address(*listener.getsockname()[:2])}"
    return supervise(app.app_name, listener, url, workers, on_worker_gone, partial(_say, app))


class _Launch:
    """Serves an app once, and handles the signals."""

    def __init__(
        self, app: Launchable, config: ServerConfig, watchdog: _Watchdog, inherited: Inheritance | None
    ) -> None:
        self._app = app
        self._inherited = inherited
        self._config = config
        self._watchdog = watchdog
        self._signals = 0
        self._starting = trio.CancelScope()
        self._served = trio.CancelScope()
        self._stop = trio.Event()
        self._hurry = trio.Event()

    async def run(self) -> None:
        self._watchdog.root_task = trio.lowlevel.current_root_task()
        with self._handle_signals():
            async with trio.open_nursery() as nursery:
                # Until it serves there is nothing to drain, so a signal cancels the start-up.
                with self._starting:
                    urls = await nursery.start(self._serve)
                    nursery.start_soon(self._watch_crash)
                    nursery.start_soon(self._run_services, " and ".join(urls))

    async def _serve(self, *, task_status: trio.TaskStatus[list[str]]) -> None:
        app: ASGIFramework = self._app  # type: ignore[assignment]  # `Launchable` leaves ASGI out
        live: set[Connection] = set()
        self._app.connection_count = lambda: len(live)
        self._app.shut_down = self._shut_down
        try:
            await serve(app, self._config, shutdown_trigger=self._drain, live=live, task_status=task_status)
        finally:
            self._app.connection_count = self._app.shut_down = None
            self._served.cancel(reason="the server has ended")

    async def _run_services(self, urls: str) -> None:
        """Run the tasks that end together with the server."""
        with self._served:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._announce, urls)
                if self._inherited is not None:
                    nursery.start_soon(self._watch_master, self._inherited)

    async def _watch_master(self, inherited: Inheritance) -> None:
        """Drain when the master of this worker has died."""
        await inherited.wait_master_gone()
        log.warning("the master process is gone; this worker stops")
        self._stop.set()

    async def _announce(self, urls: str) -> None:
        """Print that the app is ready, or report it to the master.

        If it is not ready at once, log what it waits for.
        """
        app, inherited = self._app, self._inherited
        if inherited is not None:
            inherited.report(STARTED)
        if (reason := app.unready_reason()) is not None:
            log.warning("%s listens on %s and is not ready yet: %s", app.app_name, urls, reason)
        while app.unready_reason() is not None:  # noqa: ASYNC110  there is no event to wait for
            await trio.sleep(READY_POLL)
        if inherited is not None:
            inherited.report(READY)
            return
        page = "" if app.page_path is None else f"; chat page: {urls.split()[0]}{app.page_path}"
        _say(app, f"{app.app_name} is ready on {urls} (Ctrl-C stops it; node {app.node_id}){page}")

    @contextmanager
    def _handle_signals(self) -> Iterator[None]:
        """Handle signals inside this block.

        `trio.open_signal_receiver` is not used, because the third signal has to work while a handler blocks the
        event loop.
        """
        token = trio.lowlevel.current_trio_token()

        def handle(number: int, _frame: FrameType | None) -> None:
            if number not in (signal.SIGTERM, signal.SIGINT):
                token.run_sync_soon(self._handle_other_signal, number)
                return
            self._signals += 1
            if self._signals > 2:
                os._exit(EXIT_BY_FORCE)
            token.run_sync_soon(self._stop_or_hurry)

        taken = (signal.SIGTERM, signal.SIGINT, *signals_to_take())
        before = {number: signal.signal(number, handle) for number in taken}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle_other_signal(self, number: int) -> None:
        if not note_ignored(number, stopping=self._stop.is_set()):
            self._stop_or_hurry()

    def _stop_or_hurry(self) -> None:
        self._starting.cancel(reason="stopped by a signal during the start-up")
        self._stop.set()
        if self._signals > 1:
            self._hurry.set()

    def _shut_down(self) -> None:
        if self._inherited is None:
            self._stop.set()
        else:
            # Ask the master to end the server: it would restart a worker that ends by itself.
            self._inherited.report(END)

    async def _drain(self) -> None:
        await self._stop.wait()
        log.info("Draining; a second signal stops the live runs, a third one ends the process")
        await self._app.drain(self._hurry)
        self._watchdog.start()

    async def _watch_crash(self) -> None:
        # A crash of a background task ends the server without `_drain`, so the watchdog is started here.
        await self._app.shutdown_event.wait()
        self._watchdog.start()


class _Watchdog:
    """Ends a process that does not end by itself, and logs what it waits for."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self.root_task: trio.lowlevel.Task | None = None
        self._started = False
        self._over = threading.Event()

    def start(self) -> None:
        if self._started:
            return
        self._started = True
        # A daemon thread, because the event loop itself may be blocked.
        threading.Thread(target=self._watch, name="exit watchdog", daemon=True).start()

    def stand_down(self) -> None:
        """Stop watching: the server has ended, and the program of the caller may continue."""
        self._over.set()

    def _watch(self) -> None:
        if self._over.wait(self._timeout):
            return
        log.critical("Still alive %g s after the drain, ending the process. It waits for:", self._timeout)
        for line in (*_tasks(self.root_task), *_threads()):
            log.critical("  %s", line)
        sys.stderr.flush()
        os._exit(1)


def _tasks(root: trio.lowlevel.Task | None) -> list[str]:
    """Describe the leaves of the task tree. The tree may change meanwhile, since another thread reads it."""
    lines: list[str] = []
    pending = [] if root is None else [root]
    while pending:
        task = pending.pop()
        children = [child for nursery in tuple(task.child_nurseries) for child in tuple(nursery.child_tasks)]
        pending += children
        if not children:
            # The innermost frames of every task are Trio's. Their callers are shown, which say more.
            where = [
                f"{frame.f_code.co_filename}:{line}"
                for frame, line in task.iter_await_frames()
                if not str(frame.f_globals.get("__name__")).startswith("trio.")
            ]
            lines.append(f"task {task.name} at {' > '.join(where[-3:]) or 'Trio'}")
    return lines


def _threads() -> list[str]:
    frames = sys._current_frames()
    lines = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is not None and thread is not threading.current_thread():
            lines.append(f"thread {thread.name} at {frame.f_code.co_filename}:{frame.f_lineno}")
    return lines


def imported_by_launcher() -> bool:
    """Return whether a launcher imports the caller's module right now; `app.run()` must then do nothing.

    Launchers are Hypercorn's `load_application`, a spawned worker that imports the main module again, Celery, our
    command line, and code that loads an app by its name. A call of `app.run()` outside of an import is not
    affected.
    """
    importing = False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = _module(frame)
        if name in IMPORTERS:
            importing = True
        elif importing and _launches(name, frame.f_code.co_name):
            return True
        frame = frame.f_back
    return False


def _launches(module: str, function: str) -> bool:
    if module == "hypercorn.utils":
        return function == "load_application"
    return module == "multiprocessing.spawn" or any(
        module == package or module.startswith(f"{package}.") for package in LAUNCHERS
    )


def _module(frame: FrameType) -> str:
    """Return the name of the frame's module, also when it runs as `python -m`."""
    name = str(frame.f_globals.get("__name__", ""))
    if name == "__main__":
        return str(getattr(frame.f_globals.get("__spec__"), "name", name))
    return name
