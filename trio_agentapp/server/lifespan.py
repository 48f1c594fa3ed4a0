"""The app's life in one task: what is opened here is closed here, in the opposite order.

So a user's `lifespan` and Quart's `while_serving` generators may hold nurseries and cancel scopes. A crash in
the background stops the server in order: runs are drained, hooks run, everything is closed, and only then
does the ASGI server hear `lifespan.shutdown.failed`, which ends the process. A server without its background
would be a zombie.
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

from ..errors import AgentAppError
from ..protocol.text import describe_exception, safe_text
from ..runs.containment import close_dropped, contain, noted, unwrap
from ..runs.failures import is_cancelled, leaves, printable
from ..runs.log_fields import add_log_fields
from ..telemetry import configure_logging
from .blocking import blocking_named
from .guard import guard_http2, guard_hypercorn
from .signals import note_ignored, signals_to_take
from .websocket_stream import guard_websockets

__all__ = ["NOT_ASGI", "NOT_TRIO", "Lifespan", "Servable", "log_failure"]

log = logging.getLogger(__name__)

GC_GENERATIONS = (20, 100)
"""Thresholds of the older generations: measured together with a young one of 50,000."""

UNWINDING_PATIENCE = 5.0
"""For cancelled background tasks; one that shields itself for longer is left to the process's end."""


class Servable(Protocol):
    """What an app offers to be served: its own life, and Quart's hooks around the serving.

    Optional: `launched` (true when our launcher owns the signals), `gc_threshold` (0 leaves the collector alone),
    `log_format` and `node_id`.
    """

    nursery: trio.Nursery
    shutdown_event: Any
    config: Any
    before_serving_funcs: list[Callable[[], Awaitable[None]]]
    while_serving_gens: list[AsyncGenerator[None, None]]
    after_serving_funcs: list[Callable[[], Awaitable[None]]]

    def runtime(self) -> AbstractAsyncContextManager[None]:
        """Open backend, stores, user's lifespan, registry. Raising is a start-up failure; the exit drains."""

    async def drain(self, hurry: trio.Event) -> None:
        """Refuse new runs; wait for live ones until `hurry` or a bound; stop the rest, with their cleanup.

        Called more than once, also while another call is under way: each returns when nothing runs any more.
        """

    def app_context(self) -> Any:
        """Quart's application context, for the hooks."""

    def ensure_async(self, func: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """Quart's adapter for hooks that are plain functions."""


NOT_ASGI = (
    "This app is an ASGI app that runs on Trio, and this server (gunicorn, or another for WSGI) cannot serve it; "
    "start it with `python agent.py` and app.run(), or with `hypercorn -k trio agent:app`. For several "
    "processes say workers= or --workers 4."
)
NOT_TRIO = (
    "This app needs a server that runs on Trio, and this one (uvicorn, or hypercorn without -k trio) does not; "
    "start it with `python agent.py` and app.run(), or with `hypercorn -k trio agent:app`."
)


class Lifespan(TrioASGILifespan):
    """The `asgi_lifespan_class` of the app."""

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
        configure_logging(getattr(self._servable, "log_format", "text"), node_id=node_id)
        add_log_fields(node_id=node_id)
        guard_websockets()
        guard_http2()
        if not getattr(self._servable, "launched", False):
            guard_hypercorn()
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
            # SystemExit of a user's hook, too: the server drains first, and says why it ends.
            if is_cancelled(exc):
                raise
            failure = exc
        failure = failure or self._crash
        stage = "shutdown" if self._started else "startup"
        if failure is None:
            await send({"type": "lifespan.shutdown.complete"})
            return
        log_failure(f"The {'server stops' if self._started else 'start-up failed'}", failure)
        # Unasked, the failure makes the ASGI server leave; the message is for its log.
        if stage == "startup":
            await send({"type": "lifespan.startup.failed", "message": _one_line(failure)})
        else:
            await send({"type": "lifespan.shutdown.failed", "message": _one_line(failure)})

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
                    serving.enter_context(blocking_named())
                    self._started = True
                    await send({"type": "lifespan.startup.complete"})
                    await self._stop.wait()
                    app.shutdown_event.set()
                    # Before the hooks close anything that a live run may be using.
                    await app.drain(self._hurry)
                    await self._end_background(background)
                    for func in app.after_serving_funcs:
                        unwrap(await contain(app.ensure_async(func)))
            finally:
                background.cancel_scope.cancel(reason="the app is shutting down")
                # Also when we are cancelled ourselves: background tasks unwind before what they use is
                # closed.
                with trio.move_on_after(UNWINDING_PATIENCE, shield=True):
                    await self._background_over.wait()

    async def _watch_messages(self, receive: ASGIReceiveCallable) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            pass
        self._stop.set()

    async def _background(self, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        """Own `app.nursery` in a task apart, so that a crash in it cancels nothing but its siblings."""
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
        """Give background tasks Quart's time-out to end by themselves; none means at once."""
        timeout = self._servable.config.get("BACKGROUND_TASK_SHUTDOWN_TIMEOUT") or 0
        background.cancel_scope.deadline = trio.current_time() + timeout
        self._leaving.set()
        await self._background_over.wait()

    def _crashed(self, what: str, error: BaseException) -> None:
        log.critical(what, exc_info=error)
        self._crash = error
        # Nobody knows what state the app is in: stop the runs now, each with its cleanup.
        self._hurry.set()
        self._stop.set()

    def _signals_to_own(self) -> list[signal.Signals]:
        """Under the bare `hypercorn` command SIGTERM is nobody's: it would kill the worker in mid-cleanup.

        Nor is Ctrl-C, without workers: a KeyboardInterrupt would come up in whatever task is running.
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
                # A master sends SIGTERM to its last workers twice on its way out: never a wish to hurry.
                first = False

    async def _watch_master(self, master: Any) -> None:
        """Hypercorn's master dies of SIGHUP and others on the spot: its worker would keep the port for ever."""
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
        # An orphan has nobody to tell it to shut down.
        self._stop.set()
        self._crash = RuntimeError("the master process is gone")


def log_failure(what: str, error: BaseException) -> None:
    """One clear line; the traceback only where it tells more than the line."""
    cause = _single(error)
    expected = isinstance(cause, AgentAppError | OSError)
    log.critical("%s: %s", what, _one_line(cause), exc_info=None if expected else error)


def _single(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _one_line(error: BaseException) -> str:
    cause = _single(error)
    return safe_text(cause) if isinstance(cause, AgentAppError) else describe_exception(cause)


def _while_serving(generator: AsyncGenerator[None, None]) -> AbstractAsyncContextManager[None]:
    """Treat it as what it is, a context: an error reaches its `yield`, so that its nurseries unwind."""
    return asynccontextmanager(lambda: generator)()


@contextmanager
def _collector(threshold: int) -> Iterator[None]:
    """Collect rarely: with many streams it is the collector's pauses that make events late.

    What start-up made lives as long as the process and is taken out of the collector's sight.
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
    """End `hypercorn --workers 0` as Ctrl-C does; protected, so that it hits the main task and not us."""
    signal.signal(signal.SIGINT, handler)
    signal.raise_signal(signal.SIGINT)
