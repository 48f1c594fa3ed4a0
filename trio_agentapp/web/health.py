"""The responses of `/`, `/health`, `/liveness` and `/readiness`."""

from __future__ import annotations

import re
import time
from typing import Any

from quart import Quart, Response

from .responses import json_response

__all__ = ["welcome", "alive", "readiness"]


def welcome(app: Quart, name: str, description: str, prefix: str) -> Response:
    """Return the response of `/`: name and description of the app, and its routes, each with the path prefix."""
    routes: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        path = prefix + re.sub(r"<(?:\w+(?:\([^)]*\))?:)?(\w+)>", r"{\1}", rule.rule)
        if rule.websocket:
            routes.setdefault(path, set()).add("WebSocket")
        else:
            routes.setdefault(path, set()).update((rule.methods or set()) - {"HEAD", "OPTIONS"})
    return json_response(
        {
            "name": name,
            "description": description,
            "routes": {path: sorted(methods) for path, methods in sorted(routes.items())},
        }
    )


def alive(**more: Any) -> Response:
    return json_response({"status": "healthy", "timestamp": time.time(), **more})


def readiness(reason: str | None, details: dict[str, Any]) -> Response:
    """Return 200, or 503 with the reason why this node should get no new runs.

    `details`: more members of the body.
    """
    if reason is None:
        return alive(**details)
    response = json_response({"status": "unready", "timestamp": time.time(), "reason": reason, **details}, 503)
    response.headers["Retry-After"] = "1"
    return response
