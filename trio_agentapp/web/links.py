"""Ids and paths in answers, spelled so that they come back as what they are."""

from __future__ import annotations

from urllib.parse import quote, unquote

from quart.wrappers import Request
from werkzeug.routing import BaseConverter

__all__ = ["AnyPath", "link", "run_headers", "session_of_path", "shown_id"]

_AS_IT_IS = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")

HISTORY = "/history"


class AnyPath(BaseConverter):
    """For `<anything:name>` in a route: the rest of the path, slashes at its beginning and end included."""

    regex = ".+?"
    part_isolating = False
    weight = 300


def link(request: Request, path: str) -> str:
    """The path of a resource of this app, as a client has to ask for it: behind the prefix it is served under."""
    return request.root_path.rstrip("/") + path


def shown_id(name: str) -> str:
    """An id as a header can carry it: percent-encoded, but for visible ASCII other than `%`."""
    return quote(name, safe=_AS_IT_IS)


def run_headers(request: Request, run_id: str, session_id: str) -> dict[str, str]:
    """Which run an answer is about."""
    return {
        "X-Run-Id": run_id,
        "X-Session-Id": shown_id(session_id),
        "Location": link(request, f"/runs/{run_id}"),
    }


def session_of_path(request: Request, session_id: str) -> tuple[str, bool]:
    """The id in `/sessions/{id}` or `/sessions/{id}/history`, and whether it is the second.

    Servers decode a path before they hand it on, and `x%2Fhistory` looks like the second then. So the path is read
    as the client sent it. `session_id`: what the route found, for a server that does not say.
    """
    raw = request.scope.get("raw_path") or b""
    _, found, rest = raw.decode("latin-1").removeprefix(request.root_path).partition("/sessions/")
    if not found:
        return session_id, request.path.endswith(HISTORY)
    return unquote(rest.removesuffix(HISTORY)), rest.endswith(HISTORY)
