"""The tasks of an app: the functions of `@app.task`, runs in the background, their queue and their routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from quart import Quart

from ..abc import BaseInterruptBackend, TaskQueue
from ..endpoints.fastapi import refuse_fastapi
from ..endpoints.routing import native_path
from ..errors import ConfigurationError
from ..runs import RunRegistry
from ..runs.asyncio_lint import warn_of_cancelled_error
from ..runs.instruments import Instruments
from ..runs.runner import Runner
from ..tasks import BackgroundRuns, LocalTaskQueue, TaskFunction
from ..web.identity import Gate
from ..web.tasks import BackgroundRoutes, Begin, FunctionRoutes
from .instruments import AppInstruments
from .mounting import OWN, add_builtin, view_of
from .settings import Settings

if TYPE_CHECKING:
    from .celery_tasks import CeleryTasks

__all__ = ["AppTasks"]

F = TypeVar("F", bound=Callable[..., Any])


class AppTasks:
    """Registers task functions, and executes them in this process or by Celery.

    Args:
        node_id: the id of the app's node, for log lines of Celery workers.
        entrypoint: finds the entrypoint of the app, for an embedded worker.
        open_app: opens the app, in a worker that executes a run.

    Raises:
        ConfigurationError: settings that contradict each other, or Celery is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        gate: Gate,
        instruments: AppInstruments,
        *,
        node_id: str,
        entrypoint: Callable[[], str],
        open_app: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self._settings = settings
        self._gate = gate
        self._functions: dict[str, TaskFunction] = {}
        self._celery: CeleryTasks | None = None
        if settings.broker_url is not None or settings.backend_url is not None:
            # Imported only if needed: Celery is an extra.
            from .celery_tasks import CeleryTasks

            self._celery = CeleryTasks(
                settings,
                self._functions,
                instruments,
                node_id=node_id,
                entrypoint=entrypoint,
                open_app=open_app,
            )
        elif settings.enable_embedded_worker:
            raise ConfigurationError("enable_embedded_worker needs broker_url and backend_url")
        self._queue: TaskQueue = (
            self._celery.queue
            if self._celery is not None
            else LocalTaskQueue(
                self._functions,
                cleanup_budget=settings.cleanup_budget,
                debug=settings.debug,
                instruments=Instruments(instruments.all()),
            )
        )
        self._background_path = f"{settings.endpoint_path}/task"
        self._background = BackgroundRuns(name=self._background_path, timeout=settings.stream_task_timeout)
        self._begin: Begin = self._background.start
        if self._celery is not None and settings.enable_stream_task:
            self._begin = self._celery.add_background(self._background_path)

    @property
    def celery(self) -> CeleryTasks:
        """The Celery side of the app. Raises ConfigurationError if the app has no broker."""
        if self._celery is None:
            raise ConfigurationError("app.celery and workers need broker_url and backend_url")
        return self._celery

    def register(self, app: Quart, path: Any, queue: Any, timeout: float | None) -> Callable[[F], F]:
        """Return the decorator that `AgentApp.task` returns."""
        if not isinstance(path, str) or not path.startswith("/") or path == "/" or "<" in native_path(path):
            raise ConfigurationError(f"a task's path begins with '/' and has no parameters, not {path!r}")
        if not isinstance(queue, str) or not queue:
            raise ConfigurationError(f"task {path}: queue must be the name of a queue, not {queue!r}")
        path = path.rstrip("/")

        def add(fn: F) -> F:
            if path in self._functions:
                raise ConfigurationError(f"this app has a task at {path} already")
            refuse_fastapi(fn, f"task {path}")
            warn_of_cancelled_error(fn, f"task {path}")
            self._functions[path] = TaskFunction(fn, name=path, queue=queue, timeout=timeout)
            if self._celery is not None:
                self._celery.add(path)
            routes = FunctionRoutes(
                name=path, tasks=self._queue, gate=self._gate, cleanup_budget=self._settings.cleanup_budget
            )
            for method, suffix, route in (
                ("POST", "", routes.submit),
                ("GET", "/<task_id>", routes.status),
                ("POST", "/<task_id>/cancel", routes.cancel),
            ):
                endpoint = f"{OWN}task {method} {path}{suffix}".replace(".", "_")
                app.add_url_rule(path + suffix, endpoint, view_of(route), methods=[method])
            return fn

        return add

    def mount_background(self, app: Quart) -> None:
        """Add the routes of `{endpoint_path}/task`, if the app takes runs in the background."""
        if self._settings.enable_stream_task:
            path = self._background_path
            routes = BackgroundRoutes(
                name=path,
                tasks=self._background if self._celery is None else self._queue,
                begin=self._begin,
                gate=self._gate,
                cleanup_budget=self._settings.cleanup_budget,
            )
            add_builtin(app, "POST", path, view_of(routes.start))
            add_builtin(app, "GET", f"{path}/<task_id>", view_of(routes.status))
            add_builtin(app, "POST", f"{path}/<task_id>/cancel", view_of(routes.cancel))

    def check_workers(self, workers: int) -> None:
        """Raise ConfigurationError if one process could not find the tasks of another one."""
        if workers > 1 and self._celery is None and (self._functions or self._settings.enable_stream_task):
            raise ConfigurationError(
                f"{workers} workers would not know of each other's tasks; set broker_url and backend_url (or "
                "AGENTAPP_BROKER_URL and AGENTAPP_BACKEND_URL), for instance to redis://localhost:6379/0"
            )

    @asynccontextmanager
    async def open(
        self, registry: RunRegistry, backend: BaseInterruptBackend, runner: Runner | None
    ) -> AsyncIterator[None]:
        """Accept tasks inside this block. The run registry must be open around it, because tasks may start runs."""
        async with AsyncExitStack() as stack:
            if self._celery is not None:
                await stack.enter_async_context(self._celery.open(runner))
            else:
                await stack.enter_async_context(self._queue.open())
                if runner is not None and self._settings.enable_stream_task:
                    await stack.enter_async_context(self._background.open(runner, registry, backend))
            yield

    async def drain(self, hurry: trio.Event | None) -> None:
        target = self._queue if self._celery is None else self._celery
        await target.drain(self._settings.drain_timeout, hurry)
