"""`@app.task` and the runs in the background: which queue an app has, its routes, its life."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from quart import Response

from ..abc import BaseInterruptBackend, TaskQueue
from ..endpoints.fastapi import refuse_fastapi
from ..endpoints.routing import native_path
from ..errors import ConfigurationError
from ..runs import RunRegistry
from ..runs.asyncio_source import warn_of_cancelled_error
from ..runs.runner import Runner
from ..tasks import BackgroundRuns, LocalTaskQueue, TaskFunction
from ..web.identity import Gate
from ..web.tasks import Background, BackgroundRoutes, TaskRoutes
from .mounting import add_builtin, request_in_hand
from .settings import Settings

if TYPE_CHECKING:
    from .application import AgentApp
    from .celery_tasks import CeleryTasks

__all__ = ["AppTasks"]

F = TypeVar("F", bound=Callable[..., Any])


class AppTasks:
    """The task functions of an app, and what executes them.

    Raises:
        ConfigurationError: settings that do not go together, or Celery is not installed.
    """

    def __init__(self, app: AgentApp, settings: Settings, gate: Gate) -> None:
        self._app = app
        self._settings = settings
        self._gate = gate
        self._functions: dict[str, TaskFunction] = {}
        self._celery: CeleryTasks | None = None
        if settings.broker_url is not None or settings.backend_url is not None:
            # Loaded when it is wanted: it is an extra.
            from .celery_tasks import CeleryTasks

            self._celery = CeleryTasks(app, settings, self._functions)
        elif settings.enable_embedded_worker:
            raise ConfigurationError("enable_embedded_worker needs broker_url and backend_url")
        self._queue: TaskQueue = (
            self._celery.queue
            if self._celery is not None
            else LocalTaskQueue(self._functions, cleanup_budget=settings.cleanup_budget, debug=settings.debug)
        )
        self._background: Background | None = None
        self._routes = TaskRoutes(queue=self._queue, gate=gate, cleanup_budget=settings.cleanup_budget)
        if self._celery is not None and settings.enable_stream_task:
            self._background = self._celery.add_background(self.background_path)

    @property
    def background_path(self) -> str:
        return f"{self._settings.endpoint_path}/task"

    @property
    def celery(self) -> CeleryTasks:
        """Raises ConfigurationError: the app has no broker."""
        if self._celery is None:
            raise ConfigurationError("app.celery and workers need broker_url and backend_url")
        return self._celery

    def register(self, path: Any, queue: Any, timeout: float | None) -> Callable[[F], F]:
        """The decorator that `AgentApp.task` is."""
        if not isinstance(path, str) or not path.startswith("/") or path == "/" or "<" in native_path(path):
            raise ConfigurationError(f"a task's path begins with '/' and has no parameters, not {path!r}")
        if not isinstance(queue, str) or not queue:
            raise ConfigurationError(f"task {path}: queue must be the name of one, not {queue!r}")
        path = path.rstrip("/")

        def add(fn: F) -> F:
            if path in self._functions:
                raise ConfigurationError(f"this app has a task at {path} already")
            refuse_fastapi(fn, f"task {path}")
            warn_of_cancelled_error(fn, f"task {path}")
            self._functions[path] = TaskFunction(fn, name=path, queue=queue, timeout=timeout)
            if self._celery is not None:
                self._celery.add(path)
            for method, suffix, view in (
                ("POST", "", self._routes.submit),
                ("GET", "/<task_id>", self._routes.status),
                ("POST", "/<task_id>/cancel", self._routes.cancel),
            ):
                endpoint = f"trio_agentapp.task {method} {path}{suffix}".replace(".", "_")
                self._app.add_url_rule(path + suffix, endpoint, _view_of(view, path), methods=[method])
            return fn

        return add

    def check_workers(self, workers: int) -> None:
        """Raises ConfigurationError: a task of one process could not be found by the next request's."""
        if workers > 1 and self._celery is None and (self._functions or self._settings.enable_stream_task):
            raise ConfigurationError(
                f"{workers} workers would not know of each other's tasks; set broker_url and backend_url (or "
                "AGENTAPP_BROKER_URL and AGENTAPP_BACKEND_URL), for instance to redis://localhost:6379/0"
            )

    @asynccontextmanager
    async def open(
        self, registry: RunRegistry, backend: BaseInterruptBackend, runner: Runner | None
    ) -> AsyncIterator[None]:
        """Take tasks inside this block: within that of the run registry, which tasks may use."""
        async with AsyncExitStack() as stack:
            if self._celery is not None:
                await stack.enter_async_context(self._celery.open(runner))
            else:
                await stack.enter_async_context(self._queue.open())
            if runner is not None and self._settings.enable_stream_task and self._celery is None:
                background = BackgroundRuns(
                    runner,
                    registry,
                    backend,
                    name=self.background_path,
                    timeout=self._settings.stream_task_timeout,
                )
                await stack.enter_async_context(background.open())
                self._background = background
            yield

    async def drain(self, hurry: trio.Event | None) -> None:
        target = self._queue if self._celery is None else self._celery
        await target.drain(self._settings.drain_timeout, hurry)

    def mount_background(self) -> None:
        """Add the routes of `{endpoint_path}/task`, if runs in the background were asked for."""
        if self._settings.enable_stream_task:
            path = self.background_path
            for method, suffix, view in (
                ("POST", "", self._start_background),
                ("GET", "/<task_id>", self._background_status),
                ("POST", "/<task_id>/cancel", self._cancel_background),
            ):
                add_builtin(self._app, path + suffix, method, view)

    def _background_routes(self) -> BackgroundRoutes:
        assert self._background is not None  # noqa: S101  routes are served while it is open
        return BackgroundRoutes(
            background=self._background,
            gate=self._gate,
            name=self.background_path,
            cleanup_budget=self._settings.cleanup_budget,
        )

    async def _start_background(self) -> Response:
        return await self._background_routes().start(request_in_hand())

    async def _background_status(self, task_id: str) -> Response:
        return await self._background_routes().status(request_in_hand(), task_id)

    async def _cancel_background(self, task_id: str) -> Response:
        return await self._background_routes().cancel(request_in_hand(), task_id)


def _view_of(route: Callable[..., Any], path: str) -> Callable[..., Any]:
    """What Quart calls for a route of one task."""

    async def view(**ids: str) -> Response:
        response: Response = await route(request_in_hand(), path, **ids)
        return response

    return view
