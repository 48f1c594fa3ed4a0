"""CORS: which web pages of other origins may use the app.

A browser lets a page read a response of another origin only if the response names the page's origin. For requests
that an HTML form could not send, the browser asks first, by a preflight request. The headers are added to every
response here, also to those of failed requests and of middleware.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import attrs
from hypercorn.typing import ASGISendCallable, ASGISendEvent, HTTPScope
from quart import Quart, Response
from werkzeug.exceptions import HTTPException

from ..server.http_connection import HTTPConnection

__all__ = ["CrossOrigin"]

EXPOSED = (
    b"X-Run-Id, X-Session-Id, Location, Retry-After, RateLimit, RateLimit-Policy, "
    b"WWW-Authenticate, X-Request-Id, X-Should-Retry, A2A-Extensions, X-A2A-Extensions"
)
"""Response headers that a page may read, beyond those that browsers always allow.

Clients of OpenAI's APIs and of A2A read the headers in the second line.
"""

MAX_AGE = 600
"""Seconds for which a browser may cache the response to a preflight."""

TOKENS = re.compile(r"[\w!#$%&'*+.^`|~-]+(,[ \t]*[\w!#$%&'*+.^`|~-]+)*", re.ASCII)
"""A list of methods or header names, in a header."""


@attrs.frozen
class CrossOrigin:
    """The origins whose pages may use the app, each as browsers send it."""

    origins: Collection[str]

    def sending(self, scope: HTTPScope, send: ASGISendCallable) -> ASGISendCallable:
        """Return a `send` that adds the CORS headers, except where the response has its own already."""
        if not self.origins:
            return send
        # Add it also if the request has no origin: a cache must not serve this response to a page of another
        # origin.
        added = [(b"vary", b"Origin")]
        allowed = []
        if (origin := self._allowed(scope)) is not None:
            allowed = [
                (b"access-control-allow-origin", origin.encode("ascii")),
                (b"access-control-allow-credentials", b"true"),
                (b"access-control-expose-headers", EXPOSED),
            ]

        async def send_with_headers(event: ASGISendEvent) -> None:
            if event["type"] == "http.response.start":
                headers = list(event["headers"])
                own = any(name.lower() == b"access-control-allow-origin" for name, _ in headers)
                event = {**event, "headers": [*headers, *added, *([] if own else allowed)]}
            await send(event)

        return send_with_headers

    def preflight(self, app: Quart, scope: HTTPScope, send: ASGISendCallable) -> Callable[[], Response] | None:
        """Return the response to a preflight of an allowed origin.

        None: it is no such preflight, or the user has an OPTIONS route there.

        It is answered before all middleware and hooks, because a preflight has no credentials. All methods and
        headers are allowed; the route itself refuses those that it does not take.
        """
        if scope["method"] != "OPTIONS" or self._allowed(scope) is None:
            return None
        method = _header(scope, b"access-control-request-method")
        if method is None or _has_own_options(app, scope, send):
            return None
        headers = {"Access-Control-Max-Age": str(MAX_AGE)}
        for name, value in (("Methods", method), ("Headers", _header(scope, b"access-control-request-headers"))):
            if value is not None and TOKENS.fullmatch(value):
                headers[f"Access-Control-Allow-{name}"] = value
        return lambda: Response(b"", status=204, headers=headers)

    def _allowed(self, scope: HTTPScope) -> str | None:
        """The origin of the page that sent this request, if it is allowed."""
        origin = _header(scope, b"origin")
        return origin if origin in self.origins else None


def _header(scope: HTTPScope, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), None)


def _has_own_options(app: Quart, scope: HTTPScope, send: ASGISendCallable) -> bool:
    """Return whether the user has a route for OPTIONS at this path."""
    request = HTTPConnection(app, scope).request_from_scope(send)
    try:
        adapter = app.create_url_adapter(request)
        assert adapter is not None  # noqa: S101  there is one for every request
        rule, _ = adapter.match(method="OPTIONS", return_rule=True)
    except HTTPException:
        return False
    return not getattr(rule, "provide_automatic_options", True)
