"""The checks of a request before the app and its middleware get it: proxies, host, origin, trace."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope, WebsocketScope
from quart_trio import QuartTrio

from ..protocol.trace_context import continued_trace
from ..runs.containment import contain, unwrap
from ..server.http_connection import HTTPConnection
from ..server.websocket_connection import WebSocketConnection
from ..web.cors import CrossOrigin
from ..web.hosts import AllowedHosts
from ..web.proxies import Proxies
from .settings import Settings

__all__ = ["Entrance"]


class Entrance:
    """Passes each ASGI scope on to the app, or answers it. `traces`: the app itself traces each request."""

    def __init__(self, app: QuartTrio, settings: Settings, hosts: AllowedHosts, *, traces: bool) -> None:
        self._app = app
        self._hosts = hosts
        self._proxies = Proxies(settings.trusted_proxies, settings.root_path)
        self._cross_origin = CrossOrigin(settings.cors_origins)
        self._traces = traces

    # Not `async`: the frame of a coroutine would take memory as long as the stream lasts.
    def pass_on(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> Coroutine[Any, Any, None]:
        """Check the host and the origin of a request before user code gets it."""
        if scope["type"] == "lifespan":
            return self._serve_user(scope, receive, send)
        received, scope = scope, self._proxies.client_scope(scope)
        refusal = self._hosts.refusal(scope)
        if refusal is None and received is not scope:
            # Scripts of a web page can send `X-Forwarded-Host`, and cannot change `Host`.
            refusal = self._hosts.refusal(received)
        if scope["type"] == "websocket" and refusal is not None:
            return WebSocketConnection(self._app, scope, refusal)(receive, send)
        if scope["type"] == "http":
            send = self._cross_origin.sending(scope, send)
            answer = refusal or self._cross_origin.preflight(self._app, scope, send)
            if answer is not None:
                return HTTPConnection(self._app, scope, answer)(receive, send)
        if self._traces or _is_traced(scope):
            return self._serve_traced(scope, receive, send)
        return self._serve_user(scope, receive, send)

    async def _serve_traced(
        self,
        scope: HTTPScope | WebsocketScope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> None:
        """Serve a request as a part of the trace that its headers name, if they name one."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with continued_trace(headers):
            await self._serve_user(scope, receive, send)

    def _serve_user(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> Coroutine[Any, Any, None]:
        if "asgi_app" in vars(self._app):
            return self._pass_through_middleware(scope, receive, send)
        return self._app.asgi_app(scope, receive, send)

    async def _pass_through_middleware(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        # It is user code, so it runs in a task of its own.
        unwrap(await contain(self._app.asgi_app, scope, receive, send))


def _is_traced(scope: HTTPScope | WebsocketScope) -> bool:
    return any(name == b"traceparent" for name, _ in scope["headers"])
