"""What both bindings do with HTTP: version, extensions and body of a request, and streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from quart import Response
from quart.wrappers import Request

from ...errors import MalformedBody
from ...protocol.codec import decode_json
from ...web.parameters import read_body
from .faults import A2AError, kinds
from .versions import VERSIONS, Version

__all__ = [
    "extension_headers",
    "extensions_of",
    "frames",
    "read_json_body",
    "respond",
    "version_of",
]

VERSION = "A2A-Version"
EXTENSIONS = ("A2A-Extensions", "X-A2A-Extensions")
"""The header of 1.0, and that of 0.3."""

MAX_EXTENSIONS = 64


def version_of(request: Request, served: Sequence[str]) -> Version:
    """Return the version that a request asks for. Without the header it is 0.3 (specification 1.0, section 3.6.2).

    Raises A2AError: this app does not serve it.
    """
    asked = (request.headers.get(VERSION) or request.args.get(VERSION) or "").strip()
    name = ".".join(asked.split(".")[:2]) if asked else "0.3"
    if name not in served:
        said = f"version {asked[:40]!r}" if asked else f"a request without the header {VERSION} asks for 0.3, which"
        raise A2AError(
            kinds.VERSION,
            f"{said} is not supported; this agent speaks {', '.join(served)}",
            {"supportedVersions": ",".join(served)},
        )
    return VERSIONS[name]


def extensions_of(request: Request, card: Mapping[str, Any], *, legacy: bool, demanded: bool) -> list[str]:
    """Return the extensions that the client wants to use and the agent has.

    `demanded`: the client has to support those that the card calls required. Raises A2AError: it does not.
    """
    asked = {
        uri.strip() for name in EXTENSIONS for value in request.headers.getlist(name) for uri in value.split(",")
    }
    known = card["capabilities"].get("extensions", [])
    missing = [each["uri"] for each in known if each.get("required") and each["uri"] not in asked]
    if demanded and missing:
        raise A2AError(
            kinds.REQUEST if legacy else kinds.EXTENSION,
            f"Clients must support {', '.join(missing)}; name it in the header {EXTENSIONS[legacy]}.",
            {"extensions": ",".join(missing)},
        )
    return [each["uri"] for each in known if each["uri"] in asked][:MAX_EXTENSIONS]


def extension_headers(extensions: Sequence[str]) -> dict[str, str]:
    return dict.fromkeys(EXTENSIONS, ", ".join(extensions)) if extensions else {}


async def read_json_body(request: Request) -> tuple[bytes, object]:
    """Return the body and its JSON. Raises RequestErrors, and Quart's own for a body too large or too slow."""
    body = await read_body(request)
    if not body.strip():
        raise MalformedBody("The body is empty; a JSON object is needed.")
    return body, decode_json(body)


def respond(body: object, status: int = 200, *, media_type: str = "application/json") -> Response:
    return Response(orjson.dumps(body), status=status, content_type=media_type)


def frames(data: bytes) -> Response:
    """A stream of frames that are there already."""
    response = Response(data, content_type="text/event-stream; charset=utf-8")
    response.headers["Cache-Control"] = "no-cache, no-transform"
    return response
