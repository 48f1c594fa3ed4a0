"""The Celery side of an app: its Celery application, its queue and its embedded worker."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import trio

from ..errors import ConfigurationError
from ..interrupts import LocalInterruptBackend
from ..runs.instruments import Instruments
from ..runs.runner import Runner
from ..tasks import TaskFunction
from ..tasks.celery import (
    AgentBody,
    CeleryTaskQueue,
    EmbeddedWorker,
    Lifeline,
    Work,
    add_function,
    ask_agent,
    celery_name,
    new_celery,
    on_logging_set_up,
    on_process_end,
    submit_run,
)
from ..telemetry import format_handlers
from ..web.tasks import Begin
from .instruments import AppInstruments
from .settings import Settings

__all__ = ["CeleryTasks"]


class CeleryTasks:
    """Executes task functions, and runs in the background, by Celery workers.

    Raises:
        ConfigurationError: a setting is missing, or cannot work.
    """

    def __init__(
        self,
        settings: Settings,
        functions: dict[str, TaskFunction],
        instruments: AppInstruments,
        *,
        node_id: str,
        entrypoint: Callable[[], str],
        open_app: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        for name, other in (("broker_url", "backend_url"), ("backend_url", "broker_url")):
            if getattr(settings, name) is None:
                raise ConfigurationError(f"{other} needs {name}, too; one Redis can be both")
        assert settings.broker_url is not None  # noqa: S101
        assert settings.backend_url is not None  # noqa: S101
        self._settings = settings
        self._functions = functions
        self._entrypoint = entrypoint
        self._open_app = open_app
        self._in_worker = False
        self.celery = new_celery(settings.app_name, settings.broker_url, settings.backend_url)
        on_logging_set_up(partial(format_handlers, log_format=settings.log_format, node_id=node_id))
        if instruments.tracing is not None:
            on_process_end(instruments.tracing.close)
        self.queue = CeleryTaskQueue(
            self.celery,
            functions,
            redis_url=settings.backend_url,
            prefix=settings.redis_prefix,
            lease=settings.timings.lease,
            call_timeout=settings.timings.call_timeout,
            cleanup_budget=settings.cleanup_budget,
        )
        # The main process of the embedded worker reads this attribute.
        self.celery.lifeline = lifeline = Lifeline(settings.drain_timeout)
        lifeline.install()
        self._work = Work(
            redis_url=settings.backend_url,
            prefix=settings.redis_prefix,
            lease=settings.timings.lease,
            cutoff=settings.timings.cutoff,
            call_timeout=settings.timings.call_timeout,
            cleanup_budget=settings.cleanup_budget,
            lifeline=lifeline,
            instruments=Instruments(instruments.all()),
            debug=settings.debug,
        )
        self._worker: EmbeddedWorker | None = None
        self._runner: Runner | None = None

    def add(self, name: str) -> None:
        """Register the function of this name with Celery."""
        function = self._functions[name]
        self._add(name, function, self._work.body_of(function))

    def add_background(self, name: str) -> Begin:
        """Register runs of the query handler as tasks. Return the function that submits one."""
        settings = self._settings
        if settings.interrupt_redis_url is None and isinstance(
            settings.interrupt_backend, LocalInterruptBackend | None
        ):
            raise ConfigurationError(
                "enable_stream_task with a broker needs interrupt_redis_url (or AGENTAPP_INTERRUPT_REDIS_URL): "
                "without it a stop would not reach the worker that executes the run"
            )
        function = TaskFunction(
            ask_agent, name=name, queue=settings.stream_task_queue, timeout=settings.stream_task_timeout
        )
        self._functions[name] = function
        self._add(name, function, AgentBody(self._open_runner, settings.stream_task_timeout))
        return partial(submit_run, self.queue, name)

    def _add(self, name: str, function: TaskFunction, body: Callable[..., Any]) -> None:
        def perform(request: Any, *args: object) -> None:
            self._in_worker = True
            self._work.perform(request, function, body, *args)

        add_function(self.celery, celery_name(self._settings.redis_prefix, name), function, perform)

    @asynccontextmanager
    async def open(self, runner: Runner | None) -> AsyncIterator[None]:
        """Accept tasks inside this block, and run the embedded worker if there is one.

        Inside a worker do neither.
        """
        self._runner = runner
        async with AsyncExitStack() as stack:
            if not self._in_worker:
                await stack.enter_async_context(self.queue.open())
                if self._settings.enable_embedded_worker:
                    command = [sys.executable, "-m", "trio_agentapp.app.worker", self._entrypoint()]
                    self._worker = EmbeddedWorker(command, cleanup_budget=self._settings.cleanup_budget)
                    await stack.enter_async_context(self._worker.open())
            yield

    async def drain(self, timeout: float, hurry: trio.Event | None) -> None:
        await self.queue.drain(timeout, hurry)
        if self._worker is not None:
            await self._worker.drain(timeout, hurry)

    @asynccontextmanager
    async def _open_runner(self) -> AsyncIterator[Runner]:
        async with self._open_app():
            if self._runner is None:
                raise ConfigurationError("there is no query handler; register one with @app.query()")
            yield self._runner
