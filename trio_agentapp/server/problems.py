"""Problem documents (`application/problem+json`, RFC 9457): responses to requests that fail before a run starts.

Only this module turns an error into a response. A response holds no traceback and no internal names.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from quart import Quart, Response, has_request_context, request, websocket
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

__all__ = [
    "assign_request_id",
    "described",
    "headers_of",
    "install_problems",
    "internal_error",
    "problem",
    "problem_body",
    "problem_of",
]

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
"""Codes of statuses that have no `RequestError`."""

DETAILS = {
    400: "The request is not valid HTTP for this route.",
    404: "There is nothing at this path.",
    405: "This path does not support this method.",
    408: "The body did not arrive in time.",
    413: "The body is larger than this server accepts.",
    500: "Something went wrong on this server.",
}


def install_problems(app: Quart, by_protocol: Callable[[HTTPException], Response | None]) -> None:
    """Answer every error of `app` with a problem document.

    More specific error handlers of the user have precedence.

    `by_protocol`: gives the response to a request that no route takes in another shape; None: a problem document.
    """

    async def of_http_exception(error: HTTPException) -> Response:
        return by_protocol(error) or _of_http_exception(error)

    app.register_error_handler(RequestError, _of_request_error)
    app.register_error_handler(HTTPException, of_http_exception)


def assign_request_id(app: Quart) -> None:
    """Give the request of the current task an id, for its log records and its problem document."""
    add_log_fields(request_id=secrets.token_hex(8), node_id=str(getattr(app, "node_id", "")))


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    retryable: bool = False,
    extra: Mapping[str, Any] | None = None,
    path: str | None = None,
) -> Response:
    """Make a problem document; `path` is the current request's if it is None."""
    return _response(_body(status, code, title, detail, retryable=retryable, extra=extra or {}, path=path))


def problem_of(error: RequestError, path: str | None = None) -> Response:
    """Make the response to a request that `error` refuses."""
    response = _response(problem_body(error, path))
    response.headers.update(headers_of(error))
    return response


def internal_error(path: str) -> Response:
    """Make the response to a request whose handling failed outside of the app's error handlers."""
    return problem(500, "internal", PHRASES[500], DETAILS[500], path=path)


def problem_body(error: RequestError, path: str | None = None) -> dict[str, Any]:
    """Return the JSON object of the problem document, for a protocol without a status line."""
    return _body(
        error.status,
        error.code,
        error.title,
        error.detail,
        retryable=error.retryable,
        extra=error.extra(),
        path=path,
    )


def _body(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    retryable: bool,
    extra: Mapping[str, Any],
    path: str | None,
) -> dict[str, Any]:
    if path is None:
        current = request if has_request_context() else websocket
        path = current.root_path + current.path
    return {
        "type": f"urn:trio-agentapp:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": path,
        "code": code,
        "request_id": log_fields().get("request_id") or secrets.token_hex(8),
        "retryable": retryable,
        **extra,
    }


def _response(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), status=body["status"], content_type="application/problem+json")


async def _of_request_error(error: RequestError) -> Response:
    return problem_of(error)


def _of_http_exception(error: HTTPException) -> Response:
    status, code, title, detail = described(error)
    response = problem(status, code, title, detail, retryable=status in (408, 429, 503))
    response.headers.update(headers_of(error))
    return response


def described(error: RequestError | HTTPException) -> tuple[int, str, str, str]:
    """Return the status, code, title and detail of a refusal."""
    if isinstance(error, RequestError):
        return error.status, error.code, error.title, error.detail
    status = error.code or 500
    known = KNOWN.get(status)
    title = PHRASES.get(status, "Error") if known is None else known.title
    code = OTHERS.get(status, title.lower().replace(" ", "_")) if known is None else known.code
    return status, code, title, DETAILS.get(status, error.description or title)


def headers_of(error: RequestError | HTTPException) -> dict[str, str]:
    """Return the headers that the response to a refused request has."""
    if isinstance(error, RequestError):
        challenge = {"WWW-Authenticate": error.challenge} if isinstance(error, Unauthorized) else {}
        return {**challenge, **error.advice()}
    named = ("allow", "retry-after", "www-authenticate")
    return {name: value for name, value in error.get_headers() if name.lower() in named}
