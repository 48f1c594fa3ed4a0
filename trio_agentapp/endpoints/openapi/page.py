"""The views of `/openapi.json` and `/docs`."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from importlib.resources import files

from quart import Quart, Response, request

from ...protocol.serialiser import to_json

__all__ = ["docs_page", "openapi_json"]


def openapi_json(app: Quart, *, name: str, description: str, endpoint_path: str) -> Response:
    # Imported at the first request for the document, because its classes would make each start slower.
    from .document import document_of

    document = document_of(
        app,
        name=name,
        description=description,
        endpoint_path=endpoint_path,
        root_path=request.root_path,
    )
    return Response(to_json(document), content_type="application/json")


def docs_page() -> Response:
    """Return a page that loads only `openapi.json`, and sends the requests that its reader tries."""
    page, policy = _page()
    response = Response(page, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = policy
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@lru_cache(maxsize=1)
def _page() -> tuple[str, str]:
    page = files(__package__).joinpath("page.html").read_text()
    style, script = (_digest(page, tag) for tag in ("style", "script"))
    return page, (
        f"default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(page: str, tag: str) -> str:
    """Return the CSP digest of the page's own style or script. The browser then executes no other one."""
    found = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    assert found is not None  # noqa: S101
    digest = hashlib.sha256(found[1].encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
