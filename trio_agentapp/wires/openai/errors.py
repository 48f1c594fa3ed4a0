"""Refusals in the shape that OpenAI's clients read: `{"error": {"message", "type", "param", "code"}}`.

The shape is that of OpenAI's API reference, "Error codes"; the clients choose an exception class by the status.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from quart import Response
from werkzeug.exceptions import HTTPException

from ...errors import RequestError, ValidationError
from ...runs.log_fields import log_fields
from ...server.problems import described, headers_of
from ...web.responses import json_response

__all__ = ["Refused", "error_body", "in_their_shape", "question_not_open", "refusal_of", "response_not_found"]

logger = logging.getLogger("trio_agentapp.wires")

TYPES = {401: "authentication_error", 403: "permission_error", 409: "conflict_error", 429: "rate_limit_error"}
"""`error.type` by status; others are `invalid_request_error` below 500 and `server_error` from there on."""

View = Callable[..., Awaitable[Response]]


class Refused(Exception):
    """A request is refused for a reason that only this protocol has. `code` is one of OpenAI's where it has one."""

    def __init__(self, message: str, code: str, param: str) -> None:
        super().__init__(message)
        self.message, self.code, self.param = message, code, param


def response_not_found(id: str) -> Refused:
    message = f"There is no response {id!r:.100}, or it is not yours."
    return Refused(message, "previous_response_not_found", "previous_response_id")


def question_not_open(path: str, question: str) -> Refused:
    message = f"The question {question!r:.80} is not open: it was answered, or its time is over."
    return Refused(message, "question_not_open", path.removeprefix("$."))


def error_body(message: str, status: int, code: str, param: str | None = None, **more: Any) -> dict[str, Any]:
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code, **more}}


def refusal_of(error: RequestError | HTTPException) -> Response:
    """Make the response to a request that is refused, with its id.

    OpenAI answers a body of the wrong shape with 400, so 422 becomes 400.
    """
    status, code, _, detail = described(error)
    status = 400 if status == 422 else status
    param = error.errors[0][0].removeprefix("$.") if isinstance(error, ValidationError) and error.errors else None
    extra = error.extra() if isinstance(error, RequestError) else {}
    more = {name: value for name, value in extra.items() if name != "errors"}
    response = json_response(error_body(detail, status, code, param, **more), status)
    response.headers.update(headers_of(error))
    return _named(response)


def _named(response: Response) -> Response:
    if request_id := log_fields().get("request_id"):
        response.headers["x-request-id"] = str(request_id)
    return response


def in_their_shape(view: View) -> View:
    """Return a view whose every error is in the shape of this protocol, and which names its request."""

    async def guarded(*args: Any, **values: Any) -> Response:
        try:
            return _named(await view(*args, **values))
        except (RequestError, HTTPException) as error:
            return refusal_of(error)
        except Refused as error:
            return _named(json_response(error_body(error.message, 400, error.code, error.param), 400))
        except Exception:
            logger.exception("a request of an OpenAI client could not be answered")
            return refusal_of(RequestError("Something went wrong on this server."))

    return guarded
