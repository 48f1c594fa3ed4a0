"""Web pages of other origins: which of them may use the app (CORS).

A browser lets a page read an answer of another origin only if the answer names the page's origin. Before it sends
what an HTML form could not, it asks by a preflight. Every answer of the app gets its headers here, also answers to
requests that failed, and answers of middleware.
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

EXPOSED = b"X-Run-Id, X-Session-Id, Location, Retry-After"
"""The headers of answers that a page may read, beyond those that browsers always show."""

MAX_AGE = 600
"""Seconds for which a browser may remember the answer to a preflight."""

TOKENS = re.compile(r"[\w!#$%&'*+.^`|~-]+(,[ \t]*[\w!#$%&'*+.^`|~-]+)*", re.ASCII)
"""Names of methods or headers, as they may stand in a header."""


@attrs.frozen
class CrossOrigin:
    """The origins whose pages may use the app, each as browsers spell it."""

    origins: Collection[str]

    def sending(self, scope: HTTPScope, send: ASGISendCallable) -> ASGISendCallable:
        """`send`, with the headers that this request's browser wants to see added to its answer.

        An answer that names an allowed origin by itself keeps its own.
        """
        if not self.origins:
            return send
        # Also without an origin: a cache must not give this answer to a page of another one.
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
        """The answer to a preflight of an allowed origin, unless the app has an OPTIONS route of its own there.

        It is given before any middleware and hook: a preflight never carries credentials. Whatever method and
        headers it names are allowed. Whether they lead anywhere, the request itself is told.
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
        """The origin of the page that sent this request, if it may."""
        origin = _header(scope, b"origin")
        return origin if origin in self.origins else None


def _header(scope: HTTPScope, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), None)


def _has_own_options(app: Quart, scope: HTTPScope, send: ASGISendCallable) -> bool:
    """Whether the route of this path answers OPTIONS itself, and not Quart for it."""
    request = HTTPConnection(app, scope).request_from_scope(send)
    try:
        adapter = app.create_url_adapter(request)
        assert adapter is not None  # noqa: S101  there is one for every request
        rule, _ = adapter.match(method="OPTIONS", return_rule=True)
    except HTTPException:
        return False
    return not getattr(rule, "provide_automatic_options", True)
