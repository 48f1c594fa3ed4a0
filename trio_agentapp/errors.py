"""Every error of the runtime.

    AgentAppError
    ├── ConfigurationError            a setting or a call that must be corrected before the start
    ├── DeployError                   a deployment could not be started, found or ended
    ├── ItemError                     a handler yielded something that cannot be sent
    ├── Rejected                      a handler refuses its request
    ├── StaleToken                    a write by a run that has lost its session (fencing)
    ├── StateTooLarge                 a state beyond the limit of the store
    ├── ConnectionLost                a client cannot reach any server, or lost it for good
    ├── EventsMissed                  a client asked too late for some events of a run
    ├── UnexpectedAnswer              a client got a response that no server of this package sends
    ├── RegistryError                 a registry of agents cannot be reached, or refuses
    ├── A2AError                      another agent refused a request of the A2A client
    ├── AgentTaskFailed               a task of another agent failed, or was rejected or canceled
    ├── ModelError                    the server of a model refused, failed or broke off
    ├── TurnLimitReached              a model still calls tools after the last turn it may take
    └── RequestError                  refused before any run starts or answers
        ├── MalformedBody             400
        ├── ValidationError           422  carries every fault with its JSON path
        ├── UnsupportedMediaType      415
        ├── PayloadTooLarge           413
        ├── RequestTimeout            408
        ├── Unauthorized              401  carries the challenge of `WWW-Authenticate`
        │   ├── InvalidCredentials    401
        │   └── CredentialsExpired    401
        ├── Forbidden                 403
        ├── NotFound                  404
        │   ├── RunNotFound           404
        │   └── TaskNotFound          404
        ├── MethodNotAllowed          405
        ├── SessionBusy               409  carries the running run and when to try again
        ├── IdempotencyConflict       409
        ├── Elsewhere                 409  carries the node that has the run's events
        ├── RunEnded                  409
        ├── StreamExpired             410
        ├── MisdirectedRequest        421
        ├── LimitReached              429  carries the limit, its quota and its window
        │   ├── TooManyRequests       429
        │   ├── TooManyRuns           429
        │   └── QueueFull             429
        ├── NotOffered                501
        ├── Draining                  503
        └── BackendUnavailable        503

`code` is stable and is sent to clients. `status` is that of HTTP: `server/problems.py` makes responses of errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from .refusals import note_refusal

__all__ = [
    "A2AError",
    "AgentAppError",
    "AgentTaskFailed",
    "BackendUnavailable",
    "ConfigurationError",
    "ConnectionLost",
    "CredentialsExpired",
    "DeployError",
    "Draining",
    "Elsewhere",
    "EventsMissed",
    "Forbidden",
    "IdempotencyConflict",
    "InvalidCredentials",
    "ItemError",
    "LimitReached",
    "MalformedBody",
    "MethodNotAllowed",
    "MisdirectedRequest",
    "ModelError",
    "NotFound",
    "NotOffered",
    "PayloadTooLarge",
    "QueueFull",
    "Rejected",
    "RegistryError",
    "RequestError",
    "RequestTimeout",
    "RunEnded",
    "RunNotFound",
    "TaskNotFound",
    "SessionBusy",
    "StaleToken",
    "StateTooLarge",
    "StreamExpired",
    "TooManyRequests",
    "TooManyRuns",
    "TurnLimitReached",
    "Unauthorized",
    "UnexpectedAnswer",
    "UnsupportedMediaType",
    "ValidationError",
]


class AgentAppError(Exception):
    """Base class of the errors that this package raises on purpose."""


class ConfigurationError(AgentAppError, ValueError):
    """A setting that cannot work. The message names the setting, and what values would work."""


class DeployError(AgentAppError):
    """A deployment could not be started, found or ended. The message says what to look at."""


class ItemError(AgentAppError, TypeError):
    """A handler yielded, returned or emitted something that is not an item of a stream."""


class Rejected(AgentAppError):
    """Raised by a handler to refuse its request. The run ends as `rejected`, and its client gets the text."""


class StaleToken(AgentAppError):
    """A write carried a fencing token smaller than one the store has already seen."""


class StateTooLarge(AgentAppError, ValueError):
    """A state has more bytes than the store allows. Nothing was written."""


class ConnectionLost(AgentAppError):
    """The client's retries are used up: no server answered, or the stream could not be resumed.

    The run itself may still be running. Ask `client.status(run_id)` when a server answers again.
    """


class EventsMissed(AgentAppError):
    """Events `start` to `stop` of a run, both included, are no longer kept. Later events are."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__(f"events {start} to {stop} of this run are no longer kept")
        self.start = start
        self.stop = stop


class UnexpectedAnswer(AgentAppError):
    """No server of this package sends such a response: the URL is wrong, or a proxy has answered."""


class RegistryError(AgentAppError):
    """A registry of agents cannot be reached, refuses, or sends an unexpected answer. The message says which."""


class A2AError(AgentAppError):
    """Another agent refused a request, with an error of A2A or with a status of HTTP.

    `code`: the code of the specification, such as -32001 for an unknown task (A2A 1.0, section 5.4); None if the
    server sent none. `reason`: the name of the code, such as `TASK_NOT_FOUND`. `status`: the HTTP status. `data`:
    the details.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        reason: str = "",
        status: int | None = None,
        data: Any = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.status = status
        self.data = data


class AgentTaskFailed(AgentAppError):
    """A task of another agent ended as failed, rejected or canceled. `task` has what it produced before."""

    def __init__(self, name: str, task: Any) -> None:
        text = task.status.message.text if task.status.message is not None else ""
        super().__init__(
            f"task {task.id} of agent {name!r} ended as {task.state.value}" + (f": {text}" if text else "")
        )
        self.task = task


class ModelError(AgentAppError):
    """The server of a model refused, failed, broke off, or sent something else than an answer.

    `summary` may be shown to clients. `detail` is the server's own message, which may name accounts and limits; it
    is part of `str(error)`, so it is in the log. `status`: the HTTP status, if the server sent one.
    """

    code = "model_error"

    def __init__(
        self,
        summary: str,
        *,
        detail: str = "",
        status: int | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{summary} It said: {detail}" if detail else summary)
        self.summary = summary
        self.detail = detail
        self.status = status
        self.retryable = retryable
        self.retry_after = retry_after
        """Seconds after which the server accepts the request again; None if it did not say."""


class TurnLimitReached(AgentAppError):
    """A model still calls tools after the last turn it may take for one answer."""

    code = "turn_limit_reached"

    def __init__(self, turns: int) -> None:
        self.summary = f"The agent had no answer after {turns} turns."
        super().__init__(f"{self.summary} Raise max_turns, or tell the model when to stop calling tools.")


class RequestError(AgentAppError):
    """A request was refused. `detail` is sent to the client, and contains no internals of the server."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False
    sentence: ClassVar[str] = ""
    """The default of `detail`. If it is empty, the title is used."""

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        self.detail = detail or self.sentence or self.title
        super().__init__(self.detail)
        self.retry_after = retry_after
        """Seconds after which the request may be repeated; None if that is not known."""

    def extra(self) -> Mapping[str, Any]:
        """Return the members that this error adds to the problem document."""
        return {}

    def advice(self) -> Mapping[str, str]:
        """Return the headers that say when to send the request again."""
        return {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}


class MalformedBody(RequestError):
    """The body is not JSON."""

    code, status, title = "malformed_body", 400, "Malformed body"


class ValidationError(RequestError):
    """The JSON has the wrong shape. `errors` has every fault as `(JSON path, message)`."""

    code, status, title = "validation_error", 422, "Validation error"

    def __init__(self, errors: Sequence[tuple[str, str]]) -> None:
        first = f"{errors[0][0]}: {errors[0][1]}" if errors else ""
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(first + more)
        self.errors = list(errors)

    def extra(self) -> Mapping[str, Any]:
        return {"errors": [{"loc": loc, "msg": msg} for loc, msg in self.errors]}


class UnsupportedMediaType(RequestError):
    code, status, title = "unsupported_media_type", 415, "Unsupported media type"


class PayloadTooLarge(RequestError):
    code, status, title = "payload_too_large", 413, "Payload too large"


class RequestTimeout(RequestError):
    """The body did not arrive within `read_timeout`."""

    code, status, title, retryable = "request_timeout", 408, "Request timed out", True


class Unauthorized(RequestError):
    """The request has no credentials, or its credentials do not count."""

    code, status, title = "unauthorized", 401, "Unauthorized"
    sentence = "Credentials are missing or not valid."
    challenge: ClassVar[str] = "Bearer"
    """The value of `WWW-Authenticate`, which every response with 401 has (RFC 9110, section 15.5.2)."""


class InvalidCredentials(Unauthorized):
    """The credentials are wrong. The response does not say what is wrong with them."""

    code, title = "invalid_credentials", "Invalid credentials"
    sentence = "The credentials are not valid."
    challenge = 'Bearer error="invalid_token", error_description="The credentials are not valid."'  # RFC 6750, 3.1


class CredentialsExpired(Unauthorized):
    """The credentials were right, and have expired."""

    code, title = "credentials_expired", "Credentials expired"
    sentence = "The credentials have expired; get new ones."
    challenge = 'Bearer error="invalid_token", error_description="The credentials have expired."'


class Forbidden(RequestError):
    code, status, title = "forbidden", 403, "Forbidden"


class NotFound(RequestError):
    code, status, title = "not_found", 404, "Not found"


class RunNotFound(NotFound):
    """The run is unknown, or another user's. Both get the same response, byte for byte."""

    code, title = "run_not_found", "Run not found"
    sentence = "There is no such run."


class TaskNotFound(NotFound):
    """The task is unknown, expired, of another path, or another user's. All get the same response."""

    code, title = "task_not_found", "Task not found"
    sentence = "There is no such task."


class MethodNotAllowed(RequestError):
    code, status, title = "method_not_allowed", 405, "Method not allowed"


class SessionBusy(RequestError):
    """The session has a live run, and may have only one at a time."""

    code, status, title, retryable = "session_busy", 409, "Session busy", True

    def __init__(self, active_run_id: str, *, retry_after: float = 1.0) -> None:
        super().__init__("This session has a live run; stop it or wait for its end.", retry_after=retry_after)
        self.active_run_id = active_run_id

    def extra(self) -> Mapping[str, Any]:
        return {"active_run_id": self.active_run_id}


class IdempotencyConflict(RequestError):
    """An idempotency key was used again, with another body."""

    code, status, title = "idempotency_conflict", 409, "Idempotency conflict"
    sentence = "This Idempotency-Key was used with another body."


class Elsewhere(RequestError):
    """The run's events are on the node that executes it, and not in a shared store."""

    code, status, title, retryable = "elsewhere", 409, "On another node", True

    def __init__(self, node_id: str) -> None:
        super().__init__("The events of this run are on another node; send the request to that node.")
        self.node_id = node_id

    def extra(self) -> Mapping[str, Any]:
        return {"node": self.node_id}


class RunEnded(RequestError):
    """The run has ended, or has not begun, so it takes no input."""

    code, status, title = "run_ended", 409, "Run not running"
    sentence = "This run is not running, so it takes no input."


class StreamExpired(RequestError):
    """The run has ended, and its events are no longer kept."""

    code, status, title = "stream_expired", 410, "Stream expired"
    sentence = "This run has ended, and its events are no longer kept."


class MisdirectedRequest(RequestError):
    """The request is for a host that this server does not answer for. See `allowed_hosts`."""

    code, status, title = "misdirected_request", 421, "Misdirected request"


class LimitReached(RequestError):
    """A limit is reached. An error with the name of its limit counts the refusal when it is made.

    `limit` is that name, from docs/reference/limits.md. `quota`: the number that is allowed at once or, with a
    `window`, within that many seconds.
    """

    code, status, title, retryable = "limit_reached", 429, "Limit reached", True
    limit = ""
    quota = 0
    window: float | None = None

    def __init__(
        self,
        detail: str = "",
        *,
        limit: str = "",
        quota: int = 0,
        window: float | None = None,
        retry_after: float = 1.0,
    ) -> None:
        super().__init__(detail, retry_after=retry_after)
        if limit:
            self.limit, self.quota = limit, quota
            if window is not None:
                self.window = window
            note_refusal(limit)

    def extra(self) -> Mapping[str, Any]:
        window = {} if self.window is None else {"window": self.window}
        return {"limit": self.limit, "quota": self.quota, **window} if self.limit else {}

    def advice(self) -> Mapping[str, str]:
        """Return `Retry-After`, and the fields of draft-ietf-httpapi-ratelimit-headers-09."""
        retry = super().advice()
        if not self.limit:
            return retry
        per = ';qu="concurrent-requests"' if self.window is None else f";w={max(1, math.ceil(self.window))}"
        return {
            **retry,
            "RateLimit-Policy": f'"{self.limit}";q={self.quota}{per}',
            "RateLimit": f'"{self.limit}";r=0;t={retry.get("Retry-After", 1)}',
        }


class TooManyRequests(LimitReached):
    """The client sends more requests or frames per second than it may."""

    code, title = "too_many_requests", "Too many requests"


class TooManyRuns(LimitReached):
    """A limit of open runs, or of their readers, is reached."""

    code, title = "rate_limited", "Too many runs"


class QueueFull(LimitReached):
    """A queue is full: of runs for a session, messages for a run, or tasks."""

    code, title = "queue_full", "Queue full"


class NotOffered(RequestError):
    """The interrupt backend of this app does not have the operation."""

    code, status, title = "not_offered", 501, "Not offered"


class Draining(RequestError):
    """The node is shutting down and takes no new runs."""

    code, status, title, retryable = "draining", 503, "Shutting down", True

    def __init__(self) -> None:
        super().__init__("This node is shutting down; try again.", retry_after=1.0)


class BackendUnavailable(RequestError):
    """A backend or store does not answer. Nothing was started, or nothing is known about the result."""

    code, status, title, retryable = "backend_unavailable", 503, "Backend unavailable", True
