"""Errors before the first byte: `application/problem+json` (RFC 9457, WIRE section 2).

The only place where an error becomes an answer. What the answer says was written for the client: no traceback, no
path, no name of ours.
"""

from __future__ import annotations

import math
import secrets
from http import HTTPStatus
from typing import Any

import orjson
from quart import Quart, Request, Response, has_request_context, request, websocket
from werkzeug.exceptions import HTTPException

from ..errors import (
    Forbidden,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RequestError,
    RequestTimeout,
    Unauthorized,
    UnsupportedMediaType,
)
from ..runs.log_fields import add_log_fields, log_fields

__all__ = ["failure_of", "install_problems", "name_request", "problem", "problem_at", "problem_body"]

KNOWN: dict[int, type[RequestError]] = {
    error.status: error
    for error in (
        RequestError,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        RequestTimeout,
        PayloadTooLarge,
        UnsupportedMediaType,
    )
}

PHRASES = {status.value: status.phrase for status in HTTPStatus}

OTHERS = {400: "malformed_request"}
"""Codes of what no error of ours stands for."""

DETAILS = {
    400: "The request is not valid HTTP for this route.",
    404: "There is nothing at this path.",
    405: "This path does not take this method.",
    408: "The body did not arrive in time.",
    413: "The body is larger than this server takes.",
    500: "Something went wrong on this server.",
}


def install_problems(app: Quart) -> None:
    """Answer every error of `app` with a problem; a user's own error handlers are more specific, and win."""
    app.register_error_handler(RequestError, _of_request_error)
    app.register_error_handler(HTTPException, _of_http_exception)


def name_request(app: Quart) -> None:
    """Give the request that this task handles an id, which its log records and its problem document have."""
    add_log_fields(request_id=secrets.token_hex(8), node_id=str(getattr(app, "node_id", "")))


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    retryable: bool = False,
    retry_after: float | None = None,
    extra: dict[str, Any] | None = None,
) -> Response:
    body = _body(status, code, title, detail, retryable=retryable, extra=extra)
    response = _response(body)
    if retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    return response


def failure_of(failed: Request) -> Response:
    """The answer to a request that could not be handled, and has no context any more."""
    return _response(
        _body(500, "internal", "Internal Server Error", DETAILS[500], retryable=False, extra=None, path=failed.path)
    )


def problem_at(path: str, error: RequestError) -> Response:
    """The answer to a request for `path` that does not reach the app, and has no context."""
    return _response(problem_body(error, path))


def problem_body(error: RequestError, path: str | None = None) -> dict[str, Any]:
    """The problem document of an error, for a wire that has no status line."""
    extra = dict(error.extra())
    return _body(
        error.status, error.code, error.title, error.detail, retryable=error.retryable, extra=extra, path=path
    )


def _body(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    retryable: bool,
    extra: dict[str, Any] | None,
    path: str | None = None,
) -> dict[str, Any]:
    return {
        "type": f"urn:trio-agentapp:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": _path() if path is None else path,
        "code": code,
        "request_id": log_fields().get("request_id") or secrets.token_hex(8),
        "retryable": retryable,
        **(extra or {}),
    }


def _response(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), status=body["status"], content_type="application/problem+json")


def _path() -> str:
    """The path that was asked for, over HTTP or by a WebSocket's upgrade."""
    return request.path if has_request_context() else websocket.path


async def _of_request_error(error: RequestError) -> Response:
    return problem(
        error.status,
        error.code,
        error.title,
        error.detail,
        retryable=error.retryable,
        retry_after=error.retry_after,
        extra=dict(error.extra()),
    )


async def _of_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    known = KNOWN.get(status)
    title = PHRASES.get(status, "Error") if known is None else known.title
    response = problem(
        status,
        OTHERS.get(status, title.lower().replace(" ", "_")) if known is None else known.code,
        title,
        DETAILS.get(status, error.description or title),
        retryable=status in (408, 429, 503),
    )
    for name, value in error.get_headers():
        if name.lower() in ("allow", "retry-after", "www-authenticate"):
            response.headers[name] = value
    return response
