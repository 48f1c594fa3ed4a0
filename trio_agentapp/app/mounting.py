"""The built-in routes, each only where the user has no route of that path and method (WIRE, section 3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from quart import Quart, Response
from quart import request as current_request
from quart import websocket as current_websocket
from quart.wrappers import Request

from ..endpoints.openapi import docs_page, openapi_json
from ..web.health import alive, readiness, welcome
from ..web.links import AnyPath, session_of_path
from ..web.runs import RunRoutes
from ..web.sessions import SessionRoutes
from ..web.websocket import SocketRoute

__all__ = [
    "add_builtin",
    "mount_docs",
    "mount_health",
    "mount_runs",
    "mount_sessions",
    "mount_socket",
    "request_in_hand",
]


def request_in_hand() -> Request:
    request: Request = current_request._get_current_object()  # type: ignore[attr-defined]
    return request


def add_builtin(app: Quart, path: str, method: str, view: Callable[..., Any]) -> None:
    taken = any(rule.rule == path and method in (rule.methods or ()) for rule in app.url_map.iter_rules())
    if not taken:
        app.add_url_rule(path, f"trio_agentapp.{method} {path}".replace(".", "_"), view, methods=[method])


def mount_health(
    app: Quart, name: str, description: str, node_id: str, unready_reason: Callable[[], str | None]
) -> None:
    async def root() -> Response:
        return welcome(app, name, description)

    async def health() -> Response:
        return alive(service=name, node=node_id)

    async def ready() -> Response:
        return readiness(unready_reason)

    add_builtin(app, "/", "GET", root)
    add_builtin(app, "/health", "GET", health)
    add_builtin(app, "/liveness", "GET", health)
    add_builtin(app, "/readiness", "GET", ready)


def mount_docs(app: Quart, name: str, description: str, endpoint_path: str) -> None:
    async def openapi() -> Response:
        return openapi_json(app, name=name, description=description, endpoint_path=endpoint_path)

    async def docs() -> Response:
        return docs_page()

    add_builtin(app, "/openapi.json", "GET", openapi)
    add_builtin(app, "/docs", "GET", docs)


def mount_runs(app: Quart, endpoint_path: str, routes: Callable[[], RunRoutes]) -> None:
    """`routes` gives the views of the app as it is open now: it may be opened again, with new parts."""

    def view_of(name: str) -> Callable[..., Awaitable[Response]]:
        async def view(**values: str) -> Response:
            response: Response = await getattr(routes(), name)(request_in_hand(), **values)
            return response

        return view

    for path, method, name in (
        (endpoint_path, "POST", "process"),
        ("/stop", "POST", "stop"),
        ("/runs", "GET", "list_all"),
        ("/runs/cancel", "POST", "cancel_several"),
        ("/runs/<run_id>", "GET", "one"),
        ("/runs/<run_id>/stream", "GET", "attach"),
        ("/runs/<run_id>/wait", "GET", "wait"),
        ("/runs/<run_id>/cancel", "POST", "cancel"),
        ("/runs/<run_id>/input", "POST", "put_in"),
    ):
        add_builtin(app, path, method, view_of(name))


def mount_sessions(app: Quart, runs: Callable[[], RunRoutes], sessions: Callable[[], SessionRoutes]) -> None:
    """Two routes and one view: which one is meant is read from the path as the client sent it."""

    async def view(session_id: str) -> Response:
        request = request_in_hand()
        session_id, history = session_of_path(request, session_id)
        if history:
            return await sessions().history(request, session_id)
        return await runs().session(request, session_id)

    app.url_map.converters["anything"] = AnyPath
    add_builtin(app, "/sessions/<anything:session_id>/history", "GET", view)
    add_builtin(app, "/sessions/<anything:session_id>", "GET", view)


def mount_socket(app: Quart, route: Callable[[], SocketRoute]) -> None:
    """`/ws`, unless the user has a WebSocket there."""

    async def view() -> None:
        await route().serve(current_websocket._get_current_object())  # type: ignore[attr-defined]

    if not any(rule.rule == "/ws" and rule.websocket for rule in app.url_map.iter_rules()):
        app.add_websocket("/ws", "trio_agentapp_WS /ws", view)
