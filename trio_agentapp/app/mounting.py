"""Adds the built-in routes to an app, except where the user has a route of the same path and method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

from quart import Quart, Response
from quart import request as request_proxy
from quart import websocket as websocket_proxy
from quart.wrappers import Request, Websocket

from ..endpoints.openapi import docs_page, openapi_json
from ..web.admin import AdminRoutes, AdminView
from ..web.chat import ChatPage
from ..web.health import alive, readiness, welcome
from ..web.runs import RunRoutes
from ..web.sessions import AnyPath, SessionRoutes
from ..web.websocket import SocketRoute

__all__ = [
    "add_builtin",
    "counts_addresses",
    "mount_admin",
    "mount_chat",
    "mount_health",
    "mount_runs",
    "mount_sessions",
    "mount_socket",
    "current_request",
    "view_of",
]

View: TypeAlias = Callable[..., Awaitable[Response]]


def current_request() -> Request:
    request: Request = request_proxy._get_current_object()  # type: ignore[attr-defined]
    return request


def view_of(route: View) -> View:
    """Return a Quart view that calls `route` with the current request and the values of the path."""

    async def view(**values: str) -> Response:
        return await route(current_request(), **values)

    return view


OWN = "trio_agentapp_"
"""The prefix of the names of the built-in views."""


def add_builtin(app: Quart, method: str, path: str, view: View) -> None:
    taken = any(rule.rule == path and method in (rule.methods or ()) for rule in app.url_map.iter_rules())
    if not taken:
        app.add_url_rule(path, f"{OWN}{method} {path}".replace(".", "_"), view, methods=[method])


UNIDENTIFIED = ("/", "/openapi.json", "/docs", "/chat", "/chat/<name>")
"""Built-in routes that do not identify their client.

Health routes and metrics are left out: their callers, such as orchestrators, must not be refused.
"""


def counts_addresses(request: Request | Websocket) -> bool:
    """Return whether a request counts for the address of its client, because its route does not identify the
    client.

    These are the routes of the user, pages, and paths that do not exist.
    """
    rule = request.url_rule
    return rule is None or not rule.endpoint.startswith(OWN) or rule.rule in UNIDENTIFIED


def mount_health(
    app: Quart,
    *,
    name: str,
    description: str,
    node_id: str,
    endpoint_path: str,
    unready_reason: Callable[[], str | None],
    details: Callable[[], dict[str, Any]],
) -> None:
    """Add `/`, the health routes and the documentation of the API."""

    async def root() -> Response:
        return welcome(app, name, description, request_proxy.root_path)

    async def health() -> Response:
        return alive(service=name, node=node_id)

    async def ready() -> Response:
        return readiness(unready_reason(), details())

    async def openapi() -> Response:
        return openapi_json(app, name=name, description=description, endpoint_path=endpoint_path)

    async def docs() -> Response:
        return docs_page()

    add_builtin(app, "GET", "/", root)
    add_builtin(app, "GET", "/health", health)
    add_builtin(app, "GET", "/liveness", health)
    add_builtin(app, "GET", "/readiness", ready)
    add_builtin(app, "GET", "/openapi.json", openapi)
    add_builtin(app, "GET", "/docs", docs)


def mount_admin(app: Quart, routes: AdminRoutes) -> None:
    """Add the routes of operators."""

    def add(method: str, path: str, route: AdminView) -> None:
        add_builtin(app, method, path, view_of(partial(routes.dispatch, route)))

    add("GET", "/admin/status", AdminRoutes.status)
    add("GET", "/admin/runs", AdminRoutes.runs)
    add("GET", "/admin/config", AdminRoutes.show_config)
    add("POST", "/admin/drain", AdminRoutes.start_drain)
    add("POST", "/admin/shutdown", AdminRoutes.start_shutdown)


def mount_runs(app: Quart, endpoint_path: str, routes: Callable[[], RunRoutes]) -> None:
    """Add the routes of runs. `routes()` is called for each request: an app that is opened again has new ones."""

    def add(method: str, path: str, route: View) -> None:
        add_builtin(app, method, path, view_of(lambda request, **values: route(routes(), request, **values)))

    add("POST", endpoint_path, RunRoutes.process)
    add("POST", "/stop", RunRoutes.stop)
    add("GET", "/runs", RunRoutes.list_all)
    add("GET", "/questions", RunRoutes.questions)
    add("POST", "/runs/cancel", RunRoutes.cancel_several)
    add("GET", "/runs/<run_id>", RunRoutes.one)
    add("GET", "/runs/<run_id>/stream", RunRoutes.attach)
    add("GET", "/runs/<run_id>/tree", RunRoutes.tree)
    add("GET", "/runs/<run_id>/wait", RunRoutes.wait)
    add("POST", "/runs/<run_id>/cancel", RunRoutes.cancel)
    add("POST", "/runs/<run_id>/input", RunRoutes.put_in)


def mount_chat(app: Quart, page: ChatPage) -> None:
    """Add the chat page at `/chat`."""
    add_builtin(app, "GET", "/chat", view_of(page.page))
    add_builtin(app, "GET", "/chat/<name>", view_of(page.file))


def mount_sessions(app: Quart, routes: Callable[[], SessionRoutes]) -> None:
    app.url_map.converters["anything"] = AnyPath
    view = view_of(lambda request, session_id: routes().dispatch(request, session_id))
    add_builtin(app, "GET", "/sessions/<anything:session_id>/history", view)
    add_builtin(app, "GET", "/sessions/<anything:session_id>", view)


def mount_socket(app: Quart, route: Callable[[], SocketRoute]) -> None:
    """Add `/ws`, unless the user has a WebSocket there."""

    async def view() -> None:
        await route().serve(websocket_proxy._get_current_object())  # type: ignore[attr-defined]

    if not any(rule.rule == "/ws" and rule.websocket for rule in app.url_map.iter_rules()):
        app.add_websocket("/ws", f"{OWN}WS /ws", view)
