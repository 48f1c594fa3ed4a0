"""Opens and closes an app for its ASGI server, in one task and in opposite orders.

So a user's `lifespan` and Quart's `while_serving` generators may hold nurseries and cancel scopes. A crash of a
background task stops the server in order: runs are drained, hooks run, everything is closed, and only then the ASGI
server receives `lifespan.shutdown.failed`, which ends the process. Otherwise the server would answer requests
without its background tasks.

Under the bare `hypercorn` command this is also the only place that can handle signals.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from typing import Any, Protocol

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, LifespanScope
from quart_trio.asgi import TrioASGILifespan

from ..protocol.exception_groups import leaves
from ..runs.containment import close_dropped, contain, noted, unwrap
from ..runs.failures import is_cancelled, printable
from ..runs.log_fields import add_log_fields
from ..telemetry import configure_logging
from .blocked_loop import log_blocking_calls
from .failures import log_failure, one_line
from .patches import apply_patches
from .signals import note_ignored, signals_to_take

__all__ = ["NOT_ASGI", "NOT_TRIO", "Lifespan", "Servable"]

log = logging.getLogger("trio_agentapp.server")

GC_GENERATIONS = (20, 100)
"""Thresholds of the older generations. They were measured together with a threshold of 50,000 for the youngest."""

UNWIND_TIMEOUT = 5.0
"""Seconds for background tasks to unwind once they are cancelled; longer shields are abandoned."""


class Servable(Protocol):
    """What the lifespan needs of an app: its runtime and drain, and Quart's hooks around the serving.

    Optional: `launched` (True if `launcher` handles the signals), `gc_threshold` (0 leaves the garbage collector
    unchanged), `log_format`, `log_level` and `node_id`.
    """

    nursery: trio.Nursery
    shutdown_event: Any
    config: Any
    before_serving_funcs: list[Callable[[], Awaitable[None]]]
    while_serving_gens: list[AsyncGenerator[None, None]]
    after_serving_funcs: list[Callable[[], Awaitable[None]]]

    def runtime(self) -> AbstractAsyncContextManager[None]:
        """Open backend, stores, user's lifespan and registry. If it raises, the start-up fails. The exit drains."""

    async def drain(self, hurry: trio.Event) -> None:
        """Refuse new runs, wait for live ones until `hurry` or a deadline, stop the rest, wait for their cleanup.

        May be called more than once, also at the same time. Each call returns when no run is left.
        """

    def app_context(self) -> Any:
        """Quart's application context, for the hooks."""

    def ensure_async(self, func: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """Quart's adapter for hooks that are plain functions."""


NOT_ASGI = (
    "This app is an ASGI app that runs on Trio, and this server (gunicorn, or another for WSGI) cannot serve it; "
    "start it with `python agent.py` and app.run(), or with `hypercorn -k trio agent:app`. For several "
    "processes use workers= or --workers 4."
)
NOT_TRIO = (
    "This app needs a server that runs on Trio, and this one (uvicorn, or hypercorn without -k trio) does not; "
    "start it with `python agent.py` and app.run(), or with `hypercorn -k trio agent:app`."
)


class Lifespan(TrioASGILifespan):
    """Opens and closes the app for its ASGI server. It is the `asgi_lifespan_class` of the app."""

    def __init__(self, app: Any, scope: LifespanScope) -> None:
        super().__init__(app, scope)
        self._servable: Servable = app
        self._hurry = trio.Event()
        self._stop = trio.Event()
        self._leaving = trio.Event()
        self._background_over = trio.Event()
        self._crash: BaseException | None = None
        self._interrupt: Any = signal.default_int_handler
        self._started = False

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()  # lifespan.startup, by the ASGI specification
        if not trio.lowlevel.in_trio_run():
            await send({"type": "lifespan.startup.failed", "message": NOT_TRIO})
            return
        node_id = getattr(self._servable, "node_id", "")
        log_format = getattr(self._servable, "log_format", "text")
        configure_logging(log_format, node_id=node_id, levels=getattr(self._servable, "log_level", None))
        add_log_fields(node_id=node_id)
        apply_patches()
        failure: BaseException | None = None
        try:
            with noted(), ExitStack() as signals:
                received = None
                if owned := self._signals_to_own():
                    received = signals.enter_context(trio.open_signal_receiver(*owned))
                async with trio.open_nursery() as watch:
                    if received is not None:
                        watch.start_soon(self._watch_signals, received)
                        if (master := multiprocessing.parent_process()) is not None:
                            watch.start_soon(self._watch_master, master)
                    watch.start_soon(self._watch_messages, receive)
                    try:
                        await self._live(watch, send)
                    except BaseException as exc:
                        raise printable(exc) from exc.__cause__
                    watch.cancel_scope.cancel(reason="the lifespan is over")
        except BaseException as exc:
            # This includes SystemExit of a user's hook: the server drains first, and reports why it ends.
            if is_cancelled(exc):
                raise
            failure = exc
        failure = failure or self._crash
        if failure is None:
            await send({"type": "lifespan.shutdown.complete"})
            return
        log_failure("The server stops" if self._started else "The start-up failed", failure)
        # The ASGI server ends when it receives this, even if it has not requested a shutdown. It logs the message.
        stage = "shutdown" if self._started else "startup"
        failed: Any = {"type": f"lifespan.{stage}.failed", "message": one_line(failure)}
        await send(failed)

    async def _live(self, watch: trio.Nursery, send: ASGISendCallable) -> None:
        app = self._servable
        async with app.runtime():
            app.shutdown_event = trio.Event()
            background: trio.Nursery = await watch.start(self._background)
            app.nursery = background
            try:
                async with app.app_context(), AsyncExitStack() as serving:
                    for func in app.before_serving_funcs:
                        unwrap(await contain(app.ensure_async(func)))
                    for generator in app.while_serving_gens:
                        serving.push_async_callback(close_dropped)
                        await serving.enter_async_context(_while_serving(generator))
                        await close_dropped()
                    if self._crash is not None:
                        return
                    serving.enter_context(_collector(getattr(app, "gc_threshold", 0)))
                    serving.enter_context(log_blocking_calls())
                    self._started = True
                    await send({"type": "lifespan.startup.complete"})
                    await self._stop.wait()
                    app.shutdown_event.set()
                    # Drain before the hooks close anything that a live run may use.
                    await app.drain(self._hurry)
                    await self._end_background(background)
                    for func in app.after_serving_funcs:
                        unwrap(await contain(app.ensure_async(func)))
            finally:
                background.cancel_scope.cancel(reason="the app is shutting down")
                # Shielded, so that background tasks unwind before what they use is closed, also if this task is
                # cancelled.
                with trio.move_on_after(UNWIND_TIMEOUT, shield=True):
                    await self._background_over.wait()

    async def _watch_messages(self, receive: ASGIReceiveCallable) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            pass
        self._stop.set()

    async def _background(self, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        """Own `app.nursery` in a task of its own, so that a crash in it cancels only the tasks of that nursery."""
        try:
            async with trio.open_nursery() as nursery:
                task_status.started(nursery)
                await self._leaving.wait()
        except BaseException as exc:
            if not all(isinstance(leaf, trio.Cancelled) for leaf in leaves(exc)):
                self._crashed("A background task crashed; the server stops", exc)
            if is_cancelled(exc):
                raise
        finally:
            self._background_over.set()

    async def _end_background(self, background: trio.Nursery) -> None:
        """Wait for background tasks for Quart's time-out, by default 0 seconds, then cancel them."""
        timeout = self._servable.config.get("BACKGROUND_TASK_SHUTDOWN_TIMEOUT") or 0
        background.cancel_scope.deadline = trio.current_time() + timeout
        self._leaving.set()
        await self._background_over.wait()

    def _crashed(self, what: str, error: BaseException) -> None:
        log.critical(what, exc_info=error)
        self._crash = error
        # After a crash the state of the app is unknown, so stop the runs now, each with its cleanup.
        self._hurry.set()
        self._stop.set()

    def _signals_to_own(self) -> list[signal.Signals]:
        """The signals that this lifespan handles: none, except under the bare `hypercorn` command.

        Hypercorn's workers do not handle SIGTERM, which would kill a worker in the middle of its cleanup. Without
        workers Hypercorn does not handle Ctrl-C either, and KeyboardInterrupt would be raised in an arbitrary task.
        """
        if (
            getattr(self._servable, "launched", False)
            or threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        ):
            return []
        self._interrupt = signal.getsignal(signal.SIGINT)
        if multiprocessing.parent_process() is None and callable(self._interrupt):
            return [signal.SIGTERM, signal.SIGINT, *signals_to_take()]
        return [signal.SIGTERM, *signals_to_take()]

    async def _watch_signals(self, received: AsyncIterator[int]) -> None:
        async with trio.open_nursery() as nursery:
            first = True
            async for number in received:
                if note_ignored(number, stopping=not first):
                    continue
                if first:
                    nursery.start_soon(self._drain_and_leave)
                elif multiprocessing.parent_process() is None:
                    self._hurry.set()
                # A master sends SIGTERM twice to its last workers when it ends, so a second one must not hurry
                # them.
                first = False

    async def _watch_master(self, master: Any) -> None:
        """Drain when the master has died. Otherwise the worker would keep the port for ever."""
        await trio.lowlevel.wait_readable(master.sentinel)
        log.warning("the master process is gone; this worker drains and ends")
        await self._drain_and_leave()

    async def _drain_and_leave(self) -> None:
        try:
            await self._servable.drain(self._hurry)
        except Exception as error:
            self._crashed("Draining failed; the server stops", error)
            return
        master = multiprocessing.parent_process()
        if master is None or master.pid is None:
            _raise_sigint(self._interrupt)
            return
        if os.getppid() == master.pid:
            with suppress(ProcessLookupError):
                os.kill(master.pid, signal.SIGTERM)
                return
        # The master is dead, so no shutdown message will come.
        self._stop.set()
        self._crash = RuntimeError("the master process is gone")


def _while_serving(generator: AsyncGenerator[None, None]) -> AbstractAsyncContextManager[None]:
    """Make a context manager of the generator. An error is raised at its `yield`, so that its nurseries unwind."""
    return asynccontextmanager(lambda: generator)()


@contextmanager
def _collector(threshold: int) -> Iterator[None]:
    """Collect garbage rarely inside this block: with many streams the collector's pauses delay events.

    Objects made during the start-up live as long as the process, and are excluded from collection.
    """
    if not threshold:
        yield
        return
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(threshold, *GC_GENERATIONS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@trio.lowlevel.enable_ki_protection
def _raise_sigint(handler: Any) -> None:
    """End `hypercorn --workers 0` as Ctrl-C does.

    This function is protected, so KeyboardInterrupt is raised in the main task.
    """
    signal.signal(signal.SIGINT, handler)
    signal.raise_signal(signal.SIGINT)
