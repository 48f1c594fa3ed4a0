"""The views of the chat page and of its files."""

from __future__ import annotations

import hashlib
from html import escape
from importlib.resources import files
from string import Template

import attrs
from quart import Response
from quart.wrappers import Request

from ...errors import NotFound

__all__ = ["ChatPage"]

TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob: https:; media-src 'self' data: blob: https:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Allows only the page's own scripts and styles. The text of a message can never become HTML."""


@attrs.frozen(kw_only=True)
class ChatPage:
    name: str
    description: str
    endpoint_path: str

    async def page(self, _request: Request) -> Response:
        """`GET /chat`."""
        page = Template(files(__package__).joinpath("index.html").read_text())
        values = {"name": self.name, "description": self.description, "endpoint": self.endpoint_path}
        text = page.substitute({name: escape(value) for name, value in values.items()})
        response = Response(text, content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Cache-Control"] = "no-cache"
        return _guarded(response)

    async def file(self, request: Request, name: str) -> Response:
        """`GET /chat/{name}`: a script or a style of the page."""
        kind = TYPES.get(name[name.rfind(".") :])
        source = files(__package__).joinpath(name)
        if kind is None or "/" in name or not source.is_file():
            raise NotFound("The chat page has no such file.")
        data = source.read_bytes()
        tag = hashlib.sha256(data).hexdigest()[:32]
        unchanged = request.if_none_match.contains(tag)
        response = Response(b"" if unchanged else data, status=304 if unchanged else 200, content_type=kind)
        response.set_etag(tag)
        # Browsers ask again each time, so that after an upgrade all files have the same version.
        response.headers["Cache-Control"] = "no-cache"
        return _guarded(response)


def _guarded(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
