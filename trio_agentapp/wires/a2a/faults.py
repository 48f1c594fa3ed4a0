"""Errors of A2A, and how the runtime's own errors become them. Codes: specification 1.0, section 5.4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from werkzeug.exceptions import HTTPException

from ...errors import (
    Elsewhere,
    Forbidden,
    MalformedBody,
    NotOffered,
    PayloadTooLarge,
    RequestError,
    RequestTimeout,
    RunEnded,
    RunNotFound,
    Unauthorized,
    UnsupportedMediaType,
    ValidationError,
)

__all__ = ["A2AError", "Kind", "error_of", "kinds", "needs"]

DOMAIN = "a2a-protocol.org"
"""Of the errors that the specification defines."""

OWN_DOMAIN = "trio-agentapp"
"""Of the errors of this runtime, which the specification leaves to the server."""

ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


@attrs.frozen
class Kind:
    """One kind of error in each binding."""

    code: int
    """Of JSON-RPC."""
    reason: str
    http: int
    """The status in the HTTP+JSON binding."""
    status: str
    """The name of the gRPC status, which the body of the HTTP+JSON binding repeats."""
    text: str


class kinds:
    """The kinds that the specification names."""

    PARSE = Kind(-32700, "JSON_PARSE", 400, "INVALID_ARGUMENT", "Invalid JSON payload")
    REQUEST = Kind(-32600, "INVALID_REQUEST", 400, "INVALID_ARGUMENT", "Request payload validation error")
    METHOD = Kind(-32601, "METHOD_NOT_FOUND", 404, "NOT_FOUND", "Method not found")
    PARAMS = Kind(-32602, "INVALID_PARAMS", 400, "INVALID_ARGUMENT", "Invalid parameters")
    INTERNAL = Kind(-32603, "INTERNAL", 500, "INTERNAL", "Internal error")
    NO_TASK = Kind(-32001, "TASK_NOT_FOUND", 404, "NOT_FOUND", "Task not found")
    NOT_CANCELABLE = Kind(-32002, "TASK_NOT_CANCELABLE", 400, "FAILED_PRECONDITION", "Task cannot be canceled")
    NO_PUSH = Kind(
        -32003, "PUSH_NOTIFICATION_NOT_SUPPORTED", 400, "FAILED_PRECONDITION", "Push Notification is not supported"
    )
    UNSUPPORTED = Kind(
        -32004, "UNSUPPORTED_OPERATION", 400, "FAILED_PRECONDITION", "This operation is not supported"
    )
    CONTENT_TYPE = Kind(-32005, "CONTENT_TYPE_NOT_SUPPORTED", 400, "INVALID_ARGUMENT", "Incompatible content types")
    NO_EXTENDED_CARD = Kind(
        -32007,
        "EXTENDED_AGENT_CARD_NOT_CONFIGURED",
        400,
        "FAILED_PRECONDITION",
        "Authenticated Extended Card is not configured",
    )
    EXTENSION = Kind(-32008, "EXTENSION_SUPPORT_REQUIRED", 400, "FAILED_PRECONDITION", "Extension support required")
    VERSION = Kind(-32009, "VERSION_NOT_SUPPORTED", 400, "FAILED_PRECONDITION", "Version not supported")


@attrs.define(eq=False)
class A2AError(Exception):
    """A refused request.

    `metadata` gives facts for programs, `violations` the faults of parameters as (path, message). `transport` is
    the HTTP status of the JSON-RPC binding: 200, unless the request failed below the protocol.
    """

    kind: Kind
    message: str
    metadata: Mapping[str, str] = attrs.field(factory=dict)
    violations: Sequence[tuple[str, str]] = ()
    transport: int = 200
    domain: str = DOMAIN
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """Headers of HTTP that the answer has: when to send the request again."""

    @property
    def details(self) -> list[dict[str, Any]]:
        """The details as the specification has them: objects with `@type`."""
        info = {"reason": self.kind.reason, "domain": self.domain, "metadata": dict(self.metadata)}
        found: list[dict[str, Any]] = [{"@type": ERROR_INFO, **info}]
        if self.violations:
            fields = [{"field": field, "description": text} for field, text in self.violations]
            found.append({"@type": BAD_REQUEST, "fieldViolations": fields})
        return found

    def jsonrpc(self) -> dict[str, Any]:
        """The `error` of a JSON-RPC response."""
        return {"code": self.kind.code, "message": self.message, "data": self.details}

    def http(self) -> dict[str, Any]:
        """The body of an error in the HTTP+JSON binding."""
        kind = self.kind
        known = {"code": kind.http, "status": kind.status, "message": self.message}
        return {"error": {**known, "details": self.details}}


def needs(card: Mapping[str, Any], capability: str, kind: Kind) -> None:
    """Raises A2AError: the agent card does not offer a capability."""
    if not card["capabilities"].get(capability):
        raise A2AError(kind, f"{kind.text}: the agent card does not offer {capability}.")


def error_of(error: RequestError | HTTPException, *, task_id: str | None = None) -> A2AError:
    """Return the error of A2A for an error of the runtime."""
    named = {} if task_id is None else {"taskId": task_id}
    match error:
        case HTTPException():
            return _of_http(error)
        case RunNotFound():
            return A2AError(kinds.NO_TASK, kinds.NO_TASK.text, named)
        case RunEnded():
            return A2AError(kinds.UNSUPPORTED, "This task takes no more messages.", named)
        case NotOffered():
            return A2AError(kinds.UNSUPPORTED, error.detail, named)
        case ValidationError():
            return A2AError(kinds.PARAMS, error.detail, violations=error.errors)
        case MalformedBody():
            return A2AError(kinds.PARSE, error.detail)
        case UnsupportedMediaType():
            return A2AError(kinds.CONTENT_TYPE, error.detail, transport=415)
        case Unauthorized():
            kind = Kind(kinds.REQUEST.code, "UNAUTHENTICATED", 401, "UNAUTHENTICATED", error.title)
            return A2AError(kind, error.detail, transport=401, domain=OWN_DOMAIN)
        case Forbidden():
            kind = Kind(kinds.REQUEST.code, "PERMISSION_DENIED", 403, "PERMISSION_DENIED", error.title)
            return A2AError(kind, error.detail, transport=403, domain=OWN_DOMAIN)
        case Elsewhere():
            named = {**named, "node": error.node_id}
    status = {413: "INVALID_ARGUMENT", 408: "DEADLINE_EXCEEDED", 409: "ABORTED", 429: "RESOURCE_EXHAUSTED"}
    kind = Kind(
        kinds.REQUEST.code if isinstance(error, PayloadTooLarge | RequestTimeout) else kinds.INTERNAL.code,
        error.code.upper(),
        error.status,
        status.get(error.status, "UNAVAILABLE" if error.retryable else "INTERNAL"),
        error.title,
    )
    return A2AError(
        kind,
        error.detail,
        named,
        transport=error.status if error.status in (408, 413, 429, 503) else 200,
        domain=OWN_DOMAIN,
        headers=error.advice(),
    )


def _of_http(error: HTTPException) -> A2AError:
    """Quart's own errors while a body is read."""
    if error.code == 413:
        return error_of(PayloadTooLarge("The body is larger than this server accepts."))
    if error.code == 408:
        return error_of(RequestTimeout("The body did not arrive in time."))
    return A2AError(kinds.REQUEST, "The request is not valid HTTP for this route.", transport=error.code or 400)
