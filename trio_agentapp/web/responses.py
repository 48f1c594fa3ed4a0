"""JSON answers of the runtime's own routes."""

from __future__ import annotations

import orjson
from quart import Response

__all__ = ["json_response"]


def json_response(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status=status, content_type="application/json")
