"""AgentApp: its settings, its decorators, its routes, and how it is served."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Literal, Never, TypeVar, Unpack, overload

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from outcome import Error
from quart import Response, has_request_context
from quart.ctx import RequestContext, WebsocketContext
from quart.globals import request_ctx, websocket_ctx
from quart.typing import ResponseReturnValue, ResponseTypes
from quart.wrappers import Request
from werkzeug.exceptions import HTTPException

from ..abc import DeployManager
from ..abc.frameworks import FrameworkAdapter, TypeConverters
from ..endpoints.fastapi import refuse_fastapi, refuse_fastapi_options, refuse_others
from ..endpoints.routing import RoutingApp
from ..endpoints.views import Endpoints
from ..errors import ConfigurationError
from ..frameworks import AGENT_PACKAGES, adapter_of, framework_of
from ..frameworks.bridge import Bridge
from ..frameworks.handlers import bridged
from ..frameworks.ready import handler_of_agent
from ..limits import rate_limit
from ..protocol.deployment import Deployment
from ..protocol.events import Event
from ..protocol.ids import SessionKey, new_run_id
from ..protocol.lifecycle import StopReceipt
from ..protocol.request import AgentRequest
from ..runs import Handler, stop_run
from ..runs.asyncio_lint import warn_of_cancelled_error
from ..runs.containment import unwrap
from ..server.http_connection import HTTPConnection
from ..server.lifespan import NOT_ASGI, NOT_TRIO, Lifespan
from ..server.problems import install_problems
from ..server.request import LeanRequest
from ..server.route_map import RouteMap
from ..server.websocket_connection import WebSocketConnection
from ..web.admin import AdminRoutes
from ..web.chat import ChatPage
from ..web.hosts import AllowedHosts
from ..web.identity import Gate
from ..web.metrics import MetricsRoute
from ..web.principals import address_name
from ..web.sse import release_watch
from .deploy_options import check_deploy_options
from .entrance import Entrance
from .entrypoint import entrypoint_of
from .hooks import LifeHooks
from .instruments import instruments_of
from .middleware import Middleware, layered
from .mounting import (
    add_builtin,
    counts_addresses,
    current_request,
    mount_admin,
    mount_chat,
    mount_health,
    mount_runs,
    mount_sessions,
    mount_socket,
    view_of,
)
from .reminder import refuse_positional, remind_to_serve
from .runtime import Parts, Runtime
from .serving import run_app
from .settings import Options
from .shown_settings import shown_settings
from .tasks import AppTasks
from .variables import UnknownParameter, named_by_variable, read_settings, unknown_variables
from .wires import adapters_of

__all__ = ["AgentApp"]

logger = logging.getLogger("trio_agentapp.app")

F = TypeVar("F", bound=Callable[..., Any])

LAST_FRAMES = 5.0
"""Seconds beyond the cleanup budget that a stream has for its last frames when its server stops."""


class AgentApp(RoutingApp):
    """An application that serves an agent. All parameters are keyword-only; `Settings` describes them.

    Raises:
        TypeError: there is no such parameter.
        ConfigurationError: a value from the code or from the environment cannot work.
    """

    asgi_http_class = HTTPConnection
    asgi_lifespan_class = Lifespan
    asgi_websocket_class = WebSocketConnection
    request_class = LeanRequest
    url_map_class = RouteMap

    def __init__(self, *positional: Never, **options: Unpack[Options]) -> None:
        refuse_positional(positional)
        # Quart looks for templates beside the module that makes the app.
        module = str(sys._getframe(1).f_globals.get("__name__", "__main__"))
        try:
            self._build(module, options)
        # Raised again here, so that the traceback ends at the caller's line, which has to be changed.
        except UnknownParameter as error:
            raise TypeError(str(error)) from None
        except ConfigurationError as error:
            raise named_by_variable(error, options).with_traceback(None) from None
        remind_to_serve(self, module)

    def _build(self, module: str, options: Options) -> None:
        refuse_fastapi_options(options, "AgentApp")
        settings = self.settings = read_settings(options)
        self._hooks = LifeHooks(settings)
        self.endpoints = Endpoints(cleanup_budget=settings.cleanup_budget, debug=settings.debug)
        super().__init__(module, static_folder=None)
        # Servers test whether `app.__call__` is a coroutine function, and take the app for a WSGI app if it is not.
        self.__dict__["__call__"] = self._serve
        self.app_name = settings.app_name
        self.app_description = settings.app_description
        self.cleanup_budget = settings.cleanup_budget
        self.wind_down_timeout = settings.cleanup_budget + LAST_FRAMES
        self.read_timeout = settings.read_timeout
        self.max_connections = settings.max_connections
        self.gc_threshold = settings.gc_threshold
        self.log_format = settings.log_format
        self.log_level = settings.log_level
        self.access_log = settings.access_log
        self.launched = False
        self.used = False
        """Whether the app was served, deployed or opened."""
        self.process_mode: str | None = None
        self.connection_count: Callable[[], int] | None = None
        self.shut_down: Callable[[], object] | None = None
        self.page_path = "/chat" if settings.web_ui else None
        self.node_id = new_run_id()
        self.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
        self.config["BODY_TIMEOUT"] = settings.read_timeout
        self.hosts = AllowedHosts(settings.allowed_hosts)
        self._requests = rate_limit("requests", settings.requests_per_second)
        gate = self._gate = Gate(
            settings.authenticate,
            settings.authorize,
            timeout=settings.auth_timeout,
            requests=self._requests,
        )
        self._instruments = instruments_of(self)
        self._entrance = Entrance(self, settings, self.hosts, traces=self._instruments.tracing is not None)
        self._tasks = AppTasks(
            settings,
            gate,
            self._instruments,
            node_id=self.node_id,
            entrypoint=partial(entrypoint_of, self),
            open_app=self.runtime,
        )
        self._adapters = adapters_of(settings)
        self._runtime = Runtime(
            settings,
            node_id=self.node_id,
            gate=gate,
            hooks=self._hooks,
            tasks=self._tasks,
            adapters=self._adapters,
            instruments=self._instruments.all(),
            requests=self._requests,
        )
        self.state = self._runtime.state
        self._handler: Handler | None = None
        self._framework = "text"
        self._middleware: list[Middleware] = []
        self._serving_functions: dict[int, Callable[[], AsyncGenerator[None, None]]] = {}
        """The functions of `while_serving`, by the index of their generators in `while_serving_gens`."""
        self._mounted = False
        self._unknown_variables = unknown_variables(os.environ)
        install_problems(self, self._refusal_of_protocol)
        if settings.agent is not None:
            self._serve_agent(settings.agent)

    # What users register.

    @overload
    def query(
        self, framework: str | None = None, *, type_converters: TypeConverters | None = None, **others: Any
    ) -> Callable[[F], F]: ...

    @overload
    def query(self, framework: F) -> F: ...

    def query(self, framework: Any = None, *, type_converters: TypeConverters | None = None, **others: Any) -> Any:
        """Make the decorated function the handler of `POST {endpoint_path}`.

        `framework`: None or "text" for a Trio handler, "asyncio" for one that is written for asyncio, or the name
        of an agent framework. The last two run on the asyncio loop of the app. `type_converters`: functions for
        types of messages and blocks that the framework's adapter does not know; see `abc.frameworks`.

        Raises:
            ValueError: the framework is not known; the message lists the known ones.
            ConfigurationError: there is a handler already, the function cannot be one, or the framework is not
                installed.
        """
        refuse_others(others, "@app.query")
        if callable(framework):
            return self.query()(framework)
        adapter = None if framework in (None, "text") else adapter_of(framework, type_converters)

        def register(fn: F) -> F:
            if self._handler is not None:
                raise ConfigurationError(f"this app has a query handler already: {self._handler.name}")
            refuse_fastapi(fn, f"handler {getattr(fn, '__qualname__', type(fn).__qualname__)}")
            if adapter is None:
                self._handler = Handler(fn)
                warn_of_cancelled_error(fn, f"handler {self._handler.name}")
            else:
                self._serve_on_loop(fn, adapter)
            return fn

        return register

    def _serve_on_loop(self, fn: Callable[..., Any], adapter: FrameworkAdapter) -> None:
        self._handler = Handler(bridged(fn, adapter, lambda: self.bridge))
        self._framework = adapter.name

    def _serve_agent(self, agent: Any) -> None:
        framework = framework_of(agent)
        if framework is not None:
            adapter = adapter_of(framework)
            self._serve_on_loop(handler_of_agent(agent, adapter, lambda: self.state.session_service), adapter)
        elif callable(agent):
            self.query()(agent)
        else:
            known = ", ".join(AGENT_PACKAGES.values())
            raise ConfigurationError(f"agent must be a function or an agent of {known}, not {type(agent).__name__}")

    def task(
        self, path: str, queue: str = "celery", *, timeout: float | None = None, **others: Any
    ) -> Callable[[F], F]:
        """Call the decorated function for `POST path`; clients read its result at `path/{task_id}`.

        `timeout`: seconds after which a call is stopped.

        Raises ConfigurationError: the path is taken, or the function cannot be called with a JSON body.
        """
        refuse_others(others, f"task {path}")
        return self._tasks.register(self, path, queue, timeout)

    def middleware(self, kind: str) -> Callable[[Middleware], Middleware]:
        """Register `async def mw(request, call_next)` with `@app.middleware("http")`; the last one is outermost."""
        if kind != "http":
            raise ValueError(f"middleware kind {kind!r} is not known; the known kind is 'http'")

        def register(fn: Middleware) -> Middleware:
            refuse_fastapi(fn, "middleware", hook=True)
            self._middleware.append(fn)
            return fn

        return register

    def add_middleware(self, cls: Callable[..., Any], **options: Any) -> None:
        """Wrap the app in an ASGI middleware, `cls(app, **options)`; the last one added is outermost."""
        self.asgi_app = cls(self.asgi_app, **options)  # type: ignore[method-assign]

    def init(self, fn: F) -> F:
        """Call `fn` at start-up; a parameter `self` gets the handler's `self`. Deprecated: use `lifespan`."""
        return self._hooks.add_init(fn)

    def shutdown(self, fn: Any = None) -> Any:
        """With a function, call it at shutdown (deprecated: use `lifespan`).

        Without, return Quart's own coroutine.
        """
        return super().shutdown() if fn is None else self._hooks.add_shutdown(fn)

    def while_serving(self, func: Any) -> Any:
        """Register a generator function as in Quart.

        It is called at each start, so the app may be served several times.
        """
        self._serving_functions[len(self.while_serving_gens)] = func
        return super().while_serving(func)

    # What users call.

    @property
    def has_handler(self) -> bool:
        """Whether there is a query handler."""
        return self._handler is not None

    @property
    def celery(self) -> Any:
        """The Celery application, for `celery -A module:app.celery worker`. ConfigurationError: no broker."""
        return self._tasks.celery.celery

    @property
    def bridge(self) -> Bridge:
        """Awaits asyncio code: `await app.bridge.run(fn, *args)`. BridgeClosed: the app does not run."""
        return self._runtime.bridge

    async def stop_chat(
        self, user_id: str, session_id: str, run_id: str | None = None, wait: bool = False
    ) -> StopReceipt:
        """Stop the live run of a session, on any node. With `wait`, return when the run has ended.

        Raises:
            BackendUnavailable: the run is not on this node, and the backend does not answer; safe to repeat.
            RuntimeError: the app is not running in this process.
        """
        if self._runtime.parts is None:
            raise RuntimeError(
                "stop_chat works in the process of a running app, and this app is not running in this process. "
                f"Elsewhere use the command `trio-agentapp stop URL --session {session_id} --user {user_id}`, the "
                "route POST /stop, or AgentClient(URL).stop(...)"
            )
        key = SessionKey(user_id, session_id)
        return await stop_run(self._open().registry, self._runtime.backend, key, run_id, wait=wait)

    @asynccontextmanager
    async def stream_query(
        self, request: AgentRequest | dict[str, Any] | str
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Run one request without a server; the block gets its events.

            async with app.stream_query("Hello") as events:
                async for event in events: ...

        An app that is not running is opened for this block. For several queries at once, open
        `async with app.runtime():` around them. Leaving the block early stops the run.

        Raises:
            ConfigurationError: there is no query handler. ValidationError: the request is not valid.
            SessionBusy: the session has a live run.
        """
        async with AsyncExitStack() as stack:
            if self._runtime.parts is None:
                await stack.enter_async_context(self.runtime())
            runner = self._open().runner
            if runner is None:
                raise ConfigurationError("there is no query handler; register one with @app.query()")
            yield await stack.enter_async_context(runner.stream_query(request))

    def run(  # type: ignore[override]  # Quart's development parameters have no meaning here
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        certfile: str | os.PathLike[str] | None = None,
        keyfile: str | os.PathLike[str] | None = None,
        ca_certs: str | os.PathLike[str] | None = None,
        cert_reqs: Literal["required", "optional"] | None = None,
        workers: int = 1,
    ) -> None:
        """Serve until SIGTERM or Ctrl-C, then drain.

        `workers`: the number of processes that share the port. Each of them runs this program from its beginning,
        and they need a shared interrupt backend.

        Host and port: the argument, else `HOST` and `PORT` of the environment, else 127.0.0.1:8090.

        `certfile`, `keyfile`: for TLS, as PEM. `ca_certs`: the CA whose certificates clients must present, also as
        PEM; with `cert_reqs="optional"` they may. `AGENTAPP_CERTFILE` and so on count for what is not given.

        Return after a clean end. Exit with 1 if the start failed or a crash ended the server. Do nothing while a
        launcher (hypercorn, the command line, Celery) imports the module.
        """
        from ..server.launcher import imported_by_launcher

        self.used = True
        if not imported_by_launcher():
            tls = {"certfile": certfile, "keyfile": keyfile, "ca_certs": ca_certs, "cert_reqs": cert_reqs}
            run_app(self, host, port, **tls, workers=workers)

    async def deploy(self, deployer: DeployManager, **options: Any) -> Deployment:
        """Start a service of this app by `deployer`, and return when the service is ready.

            await app.deploy(LocalDeployManager(host="0.0.0.0", port=8091))

        The options are those of `deployer.deploy`. It may be awaited from Trio or asyncio. While a launcher imports
        the module, do nothing and return a deployment without an id.

        Raises:
            DeployError: the service did not become ready.
            ConfigurationError: the option is set elsewhere, for instance on the app. TypeError: no such option.
        """
        from ..server.launcher import imported_by_launcher

        self.used = True
        if imported_by_launcher():
            return Deployment(deploy_id="", url="", mode="", pid=os.getpid())
        check_deploy_options(deployer, options)
        return await deployer.deploy(self, **options)

    # How the app runs.

    @asynccontextmanager
    async def runtime(self) -> AsyncIterator[None]:
        """Open the app for this block: stores, hooks, runs and tasks. See `Runtime.open` for the order."""
        self.used = True
        while self._unknown_variables:
            logger.warning("%s", self._unknown_variables.pop(0))
        if self.settings.require_auth and self.settings.authenticate is None:
            raise ConfigurationError("require_auth is set, and there is no authenticate hook")
        # Check them here, because hooks of blueprints are not registered by the app's decorators.
        for fn in self.hooks():
            refuse_fastapi(fn, f"hook {getattr(fn, '__qualname__', type(fn).__qualname__)}")
        # Quart keeps generators instead of functions, and each generator can serve only once.
        for place, function in self._serving_functions.items():
            self.while_serving_gens[place] = function()
        async with self._runtime.open(self, self._handler, self._framework):
            self._mount()
            yield

    async def drain(self, hurry: trio.Event | None = None) -> None:
        """Take no new runs, let live ones finish for `drain_timeout`, stop the rest; return when all have ended.

        `hurry`: when it is set, live runs are stopped at once. A second call waits for the first.
        """
        await self._runtime.drain(hurry)

    def unready_reason(self) -> str | None:
        """Return why `/readiness` answers 503; None if it answers 200."""
        return self._runtime.unready_reason()

    def note_addresses(self, urls: Sequence[str]) -> None:
        """Store the URLs on which the server listens."""
        self._runtime.served_at = tuple(urls)

    def readiness_details(self) -> dict[str, Any]:
        """Return the members that the protocols add to the body of `/readiness`."""
        return {name: value for adapter in self._adapters for name, value in adapter.details().items()}

    def check_workers(self, workers: int) -> None:
        """Raise ConfigurationError if so many processes would not know of each other's tasks."""
        self._tasks.check_workers(workers)

    def _open(self) -> Parts:
        if self._runtime.parts is None:
            raise RuntimeError("the app is not running; start it, or use `async with app.runtime():`")
        return self._runtime.parts

    def _mount(self) -> None:
        """Add the built-in routes at the first start, when all routes of the user are known."""
        if self._mounted:
            return
        self._mounted = True
        self._add_routes()
        prefix = self.settings.root_path.rstrip("/")
        if prefix and any((rule.rule + "/").startswith(prefix + "/") for rule in self.url_map.iter_rules()):
            raise ConfigurationError(
                f"root_path {prefix!r} is also the beginning of a route of this app, and a proxy may remove the "
                "prefix or not: the path would have two meanings. Choose another prefix"
            )

    def _add_routes(self) -> None:
        mount_health(
            self,
            name=self.app_name,
            description=self.app_description,
            node_id=self.node_id,
            endpoint_path=self.settings.endpoint_path,
            unready_reason=self.unready_reason,
            details=self.readiness_details,
        )
        if self.settings.admin_token is not None:
            mount_admin(self, self._admin_routes(self.settings.admin_token))
        if self._instruments.metrics is not None:
            metrics = MetricsRoute(self._instruments.metrics, self._gate, self.settings.admin_token)
            add_builtin(self, "GET", "/metrics", view_of(metrics.page))
        if self._handler is not None:
            mount_runs(self, self.settings.endpoint_path, lambda: self._open().run_routes)
            mount_sessions(self, lambda: self._open().session_routes)
            mount_socket(self, lambda: self._open().sockets)
            self._tasks.mount_background(self)
            if self.settings.web_ui:
                page = ChatPage(
                    name=self.app_name, description=self.app_description, endpoint_path=self.settings.endpoint_path
                )
                mount_chat(self, page)
            for adapter in self._adapters:
                for method, path, view in adapter.routes():
                    add_builtin(self, method, path, view_of(view))

    def _refusal_of_protocol(self, error: HTTPException) -> Response | None:
        """The response to a request that no route takes, of the protocol at whose paths it is."""
        if self._handler is None or not has_request_context() or request_ctx.request.routing_exception is not error:
            return None
        path = request_ctx.request.path
        refusals = (adapter.refusal(path, error) for adapter in self._adapters)
        return next((response for response in refusals if response is not None), None)

    def _admin_routes(self, token: str) -> AdminRoutes:
        return AdminRoutes(
            token=token,
            app_name=self.app_name,
            node_id=self.node_id,
            backend=type(self._runtime.backend).__name__,
            registry=lambda: self._open().registry,
            unready_reason=self.unready_reason,
            connection_count=lambda: None if self.connection_count is None else self.connection_count(),
            config=lambda: shown_settings(self.settings),
            count_failure=self._gate.count_failure,
            drain=self.drain,
            shut_down=lambda: self.shut_down,
        )

    # How a request passes through the app.

    def __call__(self, scope: Any, receive: Any, send: Any = None) -> Any:
        """Serve one ASGI scope.

        Raises:
            ConfigurationError: the server is a WSGI server, or does not run on Trio and has skipped the lifespan.
        """
        if send is None:
            raise ConfigurationError(NOT_ASGI)
        if scope["type"] != "lifespan" and not trio.lowlevel.in_trio_run():
            raise ConfigurationError(NOT_TRIO)
        return self._entrance.pass_on(scope, receive, send)

    async def _serve(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await self._entrance.pass_on(scope, receive, send)

    async def handle_request(self, request: Request) -> ResponseTypes:
        """Handle a request as Quart does. Then close the reader of its run, unless the response streams from it."""
        response = None
        try:
            response = await super().handle_request(request)
        finally:
            release_watch(request, response)
        if self.process_mode is not None and isinstance(response, Response):
            response.headers["X-Process-Mode"] = self.process_mode
        return response

    async def dispatch_request(self, request_context: RequestContext | None = None) -> ResponseReturnValue:
        """Count the request for the client's address, which may send so many per second; then dispatch it as Quart
        does.

        Routes that identify the client count the request for it by themselves (`Gate.identify`).
        """
        request = (request_context or request_ctx).request
        if counts_addresses(request):
            await self._requests.admit(address_name(request.scope))
        return await super().dispatch_request(request_context)

    async def dispatch_websocket(
        self, websocket_context: WebsocketContext | None = None
    ) -> ResponseReturnValue | None:
        """Dispatch a WebSocket as Quart does, with the same limit."""
        websocket = (websocket_context or websocket_ctx).websocket
        if counts_addresses(websocket):
            await self._requests.admit(address_name(websocket.scope))
        return await super().dispatch_websocket(websocket_context)

    async def full_dispatch_request(self, request_context: RequestContext | None = None) -> ResponseTypes:
        """Dispatch a request as Quart does, inside the user's middleware."""
        dispatch = super().full_dispatch_request
        try:
            if not self._middleware:
                return await dispatch(request_context)
            return await layered(self._middleware, lambda: dispatch(request_context))(current_request())
        except (Exception, BaseExceptionGroup, trio.Cancelled):
            raise
        except BaseException as exc:
            # Quart turns only Exceptions into responses. SystemExit of user code must not end the process either.
            return unwrap(Error(exc))
