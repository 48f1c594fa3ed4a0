"""AgentApp: the decorators, the wiring, the life of the parts. What it is made of lies in the other folders."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Never, TypeVar, Unpack, overload

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from outcome import Error
from quart import Response
from quart.ctx import RequestContext
from quart.typing import ResponseTypes
from quart.wrappers import Request

from ..abc import DeployManager
from ..endpoints.fastapi import refuse_fastapi, refuse_fastapi_options, refuse_others
from ..endpoints.routing import RoutingApp
from ..endpoints.views import Endpoints
from ..errors import ConfigurationError
from ..interrupts import LocalInterruptBackend
from ..protocol.deployment import Deployment
from ..protocol.events import Event
from ..protocol.ids import SessionKey, new_run_id
from ..protocol.lifecycle import StopReceipt
from ..protocol.request import AgentRequest
from ..runs import Handler, drain, stop_run
from ..runs.asyncio_source import warn_of_cancelled_error
from ..runs.containment import close_dropped, contain, noted, unwrap
from ..server.http_connection import HTTPConnection
from ..server.lifespan import NOT_ASGI, NOT_TRIO, Lifespan
from ..server.problems import install_problems
from ..server.websocket_connection import WebSocketConnection
from ..stores import stores_of
from ..web.cors import CrossOrigin
from ..web.hosts import AllowedHosts
from ..web.identity import Gate
from ..web.sessions import SessionRoutes
from ..web.sse import release_watch
from .backends import backend_of, event_store_of
from .hooks import call, self_if_wanted, shielded
from .middleware import Middleware, layered
from .mounting import mount_docs, mount_health, mount_runs, mount_sessions, mount_socket, request_in_hand
from .parts import Parts, make_runner, open_parts
from .reminder import refuse_by_place, remind_to_serve
from .serving import deploy_app, run_app
from .settings import Options, Settings, UnknownParameter, named_by_variable, unknown_variables
from .state import AppState
from .tasks import AppTasks

__all__ = ["AgentApp"]

logger = logging.getLogger("trio_agentapp.app")

F = TypeVar("F", bound=Callable[..., Any])

FRAMEWORKS = ("text",)

HOOKS = ("lifespan", "before_start", "after_finish", "authenticate", "authorize")

GOODBYE = 5.0
"""Seconds beyond the cleanup budget that a stream has for its last frames when its server leaves."""


class AgentApp(RoutingApp):
    """An application that serves an agent. All parameters are keyword-only; `Settings` tells them in full.

    Raises:
        TypeError: a parameter that does not exist.
        ConfigurationError: a value that cannot work, from the code or from the environment.
    """

    asgi_http_class = HTTPConnection
    asgi_lifespan_class = Lifespan
    asgi_websocket_class = WebSocketConnection

    def __init__(self, *by_place: Never, **options: Unpack[Options]) -> None:
        refuse_by_place(by_place)
        # Quart looks for templates beside the module that makes the app, as it would if that named itself.
        module = str(sys._getframe(1).f_globals.get("__name__", "__main__"))
        try:
            self._build(module, options)
        # The line that is to be changed is the caller's; where it was checked says nothing.
        except UnknownParameter as error:
            raise TypeError(str(error)) from None
        except ConfigurationError as error:
            raise named_by_variable(error, options).with_traceback(None) from None
        remind_to_serve(self, module)

    def __call__(self, scope: Any, receive: Any, send: Any = None) -> Any:
        """What a server calls.

        Raises:
            ConfigurationError: the server is one for WSGI, or does not run on Trio and has left out the start.
        """
        if send is None:
            raise ConfigurationError(NOT_ASGI)
        if scope["type"] != "lifespan" and not trio.lowlevel.in_trio_run():
            raise ConfigurationError(NOT_TRIO)
        return self._serve(scope, receive, send)

    def _build(self, module: str, options: Options) -> None:
        refuse_fastapi_options(options, "AgentApp")
        self.settings = Settings.read(options)
        for name in HOOKS:
            refuse_fastapi(getattr(self.settings, name), name, hook=True)
        self.endpoints = Endpoints(cleanup_budget=self.settings.cleanup_budget, debug=self.settings.debug)
        super().__init__(module, static_folder=None)
        # Servers ask whether `app.__call__` is a coroutine function, and take the app for one of WSGI if it is not.
        self.__dict__["__call__"] = self._serve
        self.app_name = self.settings.app_name
        self.app_description = self.settings.app_description
        self.cleanup_budget = self.settings.cleanup_budget
        self.wind_down_timeout = self.settings.cleanup_budget + GOODBYE
        self.read_timeout = self.settings.read_timeout
        self.gc_threshold = self.settings.gc_threshold
        self.log_format = self.settings.log_format
        self.launched = False
        self.used = False
        """It was served, deployed or opened, or told to."""
        self.process_mode: str | None = None
        self.node_id = new_run_id()
        self.config["MAX_CONTENT_LENGTH"] = self.settings.max_body_bytes
        self.config["BODY_TIMEOUT"] = self.settings.read_timeout
        self._backend = backend_of(self.settings)
        self._event_store = event_store_of(self.settings, self._backend, self.node_id)
        alone = isinstance(self._backend, LocalInterruptBackend)
        self._stores = stores_of(self.settings.state_url, prefix=self.settings.redis_prefix, alone=alone)
        self.state = AppState(self._stores.states, self._stores.sessions)
        self.hosts = AllowedHosts(self.settings.allowed_hosts)
        self._cross_origin = CrossOrigin(self.settings.cors_origins)
        self._gate = Gate(self.settings.authenticate, self.settings.authorize)
        self._tasks = AppTasks(self, self.settings, self._gate)
        self._handler: Handler | None = None
        self._framework = "text"
        self._parts: Parts | None = None
        self._drained: trio.Event | None = None
        self._middleware: list[Middleware] = []
        self._init_functions: list[Callable[..., Any]] = []
        self._shutdown_functions: list[Callable[..., Any]] = []
        self._mounted = False
        self._unknown_variables = unknown_variables(os.environ)
        install_problems(self)
        if self.settings.agent is not None:
            self.query()(self.settings.agent)

    # Decorators and calls of users.

    @overload
    def query(self, framework: str | None = None, **others: Any) -> Callable[[F], F]: ...

    @overload
    def query(self, framework: F) -> F: ...

    def query(self, framework: Any = None, **others: Any) -> Any:
        """Make the decorated function the handler of `POST {endpoint_path}`.

        Raises:
            ValueError: a framework that is not known; the message lists those that are.
            ConfigurationError: there is a handler already, or the function cannot be one.
        """
        refuse_others(others, "@app.query")
        if callable(framework):
            return self.query()(framework)
        if framework is not None and framework not in FRAMEWORKS:
            raise ValueError(f"framework {framework!r} is not known; known are {', '.join(FRAMEWORKS)}")

        def register(fn: F) -> F:
            if self._handler is not None:
                raise ConfigurationError(f"this app has a query handler already: {self._handler.name}")
            refuse_fastapi(fn, f"handler {getattr(fn, '__qualname__', type(fn).__qualname__)}")
            self._handler = Handler(fn)
            warn_of_cancelled_error(fn, f"handler {self._handler.name}")
            return fn

        return register

    def task(
        self, path: str, queue: str = "celery", *, timeout: float | None = None, **others: Any
    ) -> Callable[[F], F]:
        """Have the function called by `POST path`, its result read at `path/{task_id}`; `timeout` in seconds.

        Raises ConfigurationError: the path is taken, or the function cannot be called with a JSON body.
        """
        refuse_others(others, f"task {path}")
        return self._tasks.register(path, queue, timeout)

    @property
    def has_handler(self) -> bool:
        """Whether there is a query handler."""
        return self._handler is not None

    @property
    def celery(self) -> Any:
        """The Celery application of an app with a broker, for `celery -A module:app.celery worker`."""
        return self._tasks.celery.celery

    async def stop_chat(
        self, user_id: str, session_id: str, run_id: str | None = None, wait: bool = False
    ) -> StopReceipt:
        """Stop the running chat of a session, from any node; with `wait`, return when nothing of it runs any more.

        Raises:
            BackendUnavailable: the run is not on this node and the backend cannot be asked; safe to repeat.
            RuntimeError: the app is not running in this process.
        """
        if self._parts is None:
            raise RuntimeError(
                "stop_chat is for code of a running app, and this app is not running in this process. Otherwise "
                f"use the command `trio-agentapp stop URL --session {session_id} --user {user_id}`, the route "
                "POST /stop, or AgentClient(URL).stop(...)"
            )
        return await stop_run(
            self._open().registry, self._backend, SessionKey(user_id, session_id), run_id, wait=wait
        )

    @asynccontextmanager
    async def stream_query(
        self, request: AgentRequest | dict[str, Any] | str
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """The events of one request, without a server.

            async with app.stream_query("Hello") as events:
                async for event in events: ...

        Where the app does not run yet, it runs for this block; for several queries at once, open
        `async with app.runtime():` around them. Leaving the block early stops the run.

        Raises:
            ConfigurationError: there is no query handler. ValidationError: the request is not one.
            SessionBusy: the session has a running run.
        """
        async with AsyncExitStack() as stack:
            if self._parts is None:
                await stack.enter_async_context(self.runtime())
            runner = self._open().runner
            if runner is None:
                raise ConfigurationError("there is no query handler; register one with @app.query()")
            yield await stack.enter_async_context(runner.stream_query(request))

    def middleware(self, kind: str) -> Callable[[Middleware], Middleware]:
        """`@app.middleware("http")` on `async def mw(request, call_next)`; the last one registered is outermost."""
        if kind != "http":
            raise ValueError(f"middleware kind {kind!r} is not known; known is 'http'")

        def register(fn: Middleware) -> Middleware:
            refuse_fastapi(fn, "middleware", hook=True)
            self._middleware.append(fn)
            return fn

        return register

    def add_middleware(self, cls: Callable[..., Any], **options: Any) -> None:
        """Wrap the app into an ASGI middleware, `cls(app, **options)`; the last one added is outermost."""
        self.asgi_app = cls(self.asgi_app, **options)  # type: ignore[method-assign]

    def init(self, fn: F) -> F:
        """Call `fn` at start-up; its `self` is the handler's `self`. Deprecated: use `lifespan`."""
        warnings.warn("@app.init is deprecated; use lifespan", DeprecationWarning, stacklevel=2)
        refuse_fastapi(fn, "@app.init", hook=True)
        self._init_functions.append(fn)
        return fn

    def shutdown(self, fn: Any = None) -> Any:
        """With a function: call it at shutdown (deprecated, use `lifespan`). Without: Quart's own coroutine."""
        if fn is None:
            return super().shutdown()
        warnings.warn("@app.shutdown is deprecated; use lifespan", DeprecationWarning, stacklevel=2)
        refuse_fastapi(fn, "@app.shutdown", hook=True)
        self._shutdown_functions.append(fn)
        return fn

    def run(  # type: ignore[override]  # Quart's development parameters have no meaning here
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        certfile: str | os.PathLike[str] | None = None,
        keyfile: str | os.PathLike[str] | None = None,
        workers: int = 1,
    ) -> None:
        """Serve until SIGTERM or Ctrl-C, then drain.

        `workers`: processes behind one port. Each executes this program anew, so what stands before `run` is done
        in each; they need an interrupt backend that they share.

        Host and port: the argument, else `HOST` and `PORT` of the environment, else 127.0.0.1:8090.

        Returns after a clean end, and exits with 1 if the start failed or a crash ended the server. Does nothing
        while a launcher (hypercorn, the command line, Celery) imports the module.
        """
        self.used = True
        run_app(self, host, port, certfile=certfile, keyfile=keyfile, workers=workers)

    async def deploy(self, deployer: DeployManager, **options: Any) -> Deployment:
        """Put this app where `deployer` puts apps, and return when it is ready there.

            await app.deploy(LocalDeployManager(host="0.0.0.0", port=8091))

        The options are the deployer's. To be awaited from Trio or asyncio. While a launcher imports the module it
        does nothing, and returns a deployment without an id. Raises DeployError: it did not become ready.
        """
        self.used = True
        return await deploy_app(self, deployer, **options)

    # The life of the app.

    @asynccontextmanager
    async def runtime(self) -> AsyncIterator[None]:
        """Everything that runs around the handlers, opened and closed in order, also when opening fails midway.

        The stores and the framework's other parts; `before_start`; `@app.init`; the user's lifespan; the run
        registry. So a handler can use all of it until its cleanup is over.
        """
        settings = self.settings
        self.used = True
        while self._unknown_variables:
            logger.warning("%s", self._unknown_variables.pop(0))
        if settings.require_auth and settings.authenticate is None:
            raise ConfigurationError("require_auth is set, and there is no authenticate hook")
        # Here, as those of blueprints do not pass the app's decorators.
        for fn in self.hooks():
            refuse_fastapi(fn, f"hook {getattr(fn, '__qualname__', type(fn).__qualname__)}")
        async with AsyncExitStack() as stack:
            stack.enter_context(noted())
            await stack.enter_async_context(self._stores.open())
            stack.push_async_callback(shielded, self.state.state_service.aclose)
            stack.push_async_callback(shielded, self.state.session_service.aclose)
            stack.push_async_callback(shielded, self._backend.aclose)
            if settings.before_start is not None:
                await call(settings.before_start, self)
            if settings.after_finish is not None:
                stack.push_async_callback(shielded, call, settings.after_finish, self)
            registry, runner = make_runner(self, self._backend, self._event_store, self._handler, self._framework)
            for fn in self._init_functions:
                await call(fn, *self_if_wanted(fn, self, runner))
            for fn in reversed(self._shutdown_functions):
                stack.push_async_callback(shielded, call, fn, *self_if_wanted(fn, self, runner))
            if settings.lifespan is not None:
                stack.push_async_callback(close_dropped)
                await stack.enter_async_context(settings.lifespan(self))
                await close_dropped()
            parts = await stack.enter_async_context(
                open_parts(self, self._backend, self._event_store, self._gate, registry, runner)
            )
            await stack.enter_async_context(self._tasks.open(parts.registry, self._backend, parts.runner))
            self._parts, self._drained = parts, None
            self._mount()
            try:
                yield
            finally:
                self._parts = None

    async def drain(self, hurry: trio.Event | None = None) -> None:
        """Take no new runs, let live ones finish for `drain_timeout`, stop the rest; return when all have ended.

        Called again meanwhile, it waits for the first call.
        """
        parts = self._parts
        if self._drained is not None:
            await self._drained.wait()
        elif parts is not None:
            self._drained = trio.Event()
            parts.sockets.draining.set()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._tasks.drain, hurry)
                    nursery.start_soon(drain, parts.registry, self.settings.drain_timeout, hurry)
            finally:
                self._drained.set()

    def _open(self) -> Parts:
        if self._parts is None:
            raise RuntimeError("the app is not running; start it, or use `async with app.runtime():`")
        return self._parts

    def check_workers(self, workers: int) -> None:
        """Raises ConfigurationError: so many processes would not know of each other's tasks."""
        self._tasks.check_workers(workers)

    # Routes.

    def _mount(self) -> None:
        """Add the built-in routes, when the user's own are known."""
        if self._mounted:
            return
        self._mounted = True
        mount_health(self, self.app_name, self.app_description, self.node_id, self.unready_reason)
        mount_docs(self, self.app_name, self.app_description, self.settings.endpoint_path)
        if self._handler is not None:
            mount_runs(self, self.settings.endpoint_path, lambda: self._open().run_routes)
            mount_sessions(
                self,
                lambda: self._open().run_routes,
                lambda: SessionRoutes(self.state.session_service, self._gate),
            )
            mount_socket(self, lambda: self._open().sockets)
            self._tasks.mount_background()

    def unready_reason(self) -> str | None:
        """Why `/readiness` is 503: no new runs should come here now. None: they may."""
        if self._parts is None:
            return "starting"
        statistics = self._parts.registry.statistics()
        if statistics.draining:
            return "draining"
        if trouble := self._backend.trouble:
            return trouble
        if statistics.stuck:
            return f"{len(statistics.stuck)} stopped run(s) have not ended within their cleanup budget"
        return None

    async def _serve(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Judge the host and the origin of a request before anything of the user's sees it."""
        if scope["type"] == "websocket" and (refusal := self.hosts.refusal(scope)) is not None:
            await WebSocketConnection(self, scope, refusal)(receive, send)
            return
        if scope["type"] == "http":
            send = self._cross_origin.sending(scope, send)
            answer = self.hosts.refusal(scope) or self._cross_origin.preflight(self, scope, send)
            if answer is not None:
                await HTTPConnection(self, scope, answer)(receive, send)
                return
        if "asgi_app" in vars(self):
            # What was put around the app is user code, and has a task of its own.
            unwrap(await contain(self.asgi_app, scope, receive, send))
        else:
            await self.asgi_app(scope, receive, send)

    async def handle_request(self, request: Request) -> ResponseTypes:
        response = None
        try:
            response = await super().handle_request(request)
        finally:
            # A hook or middleware may fail, or answer in place of the view: the run is not watched then.
            release_watch(request, response)
        if self.process_mode is not None and isinstance(response, Response):
            response.headers["X-Process-Mode"] = self.process_mode
        return response

    async def full_dispatch_request(self, request_context: RequestContext | None = None) -> ResponseTypes:
        dispatch = super().full_dispatch_request
        try:
            if not self._middleware:
                return await dispatch(request_context)
            return await layered(self._middleware, lambda: dispatch(request_context))(request_in_hand())
        except (Exception, BaseExceptionGroup, trio.Cancelled):
            raise
        except BaseException as exc:
            # Quart answers exceptions, and lets pass what is meant for the process.
            return unwrap(Error(exc))
