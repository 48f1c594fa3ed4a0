"""Every error of the runtime.

    AgentAppError
    ├── ConfigurationError            the programmer or operator can mend it before the start
    ├── DeployError                   a deployment could not be started, found or ended
    ├── ItemError                     a handler yielded something that cannot be sent
    ├── StaleToken                    a write of an owner that lost its session (fencing)
    ├── StateTooLarge                 a state beyond what a store takes
    ├── ConnectionLost                a client cannot reach any server, or lost it for good
    ├── EventsMissed                  a client was too late for some events of a run
    ├── UnexpectedAnswer              a client was answered by something that is no server of ours
    └── RequestError                  refused before any run starts or answers
        ├── MalformedBody             400
        ├── ValidationError           422  carries every fault with its JSON path
        ├── UnsupportedMediaType      415
        ├── PayloadTooLarge           413
        ├── RequestTimeout            408
        ├── Unauthorized              401
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
        ├── TooManyRuns               429
        ├── QueueFull                 429
        ├── NotOffered                501
        ├── Draining                  503
        └── BackendUnavailable        503

`code` is stable and goes over the wire; `status` is a hint for whoever speaks HTTP (only `web/problems.py` does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

__all__ = [
    "AgentAppError",
    "BackendUnavailable",
    "ConfigurationError",
    "ConnectionLost",
    "DeployError",
    "Draining",
    "Elsewhere",
    "EventsMissed",
    "Forbidden",
    "IdempotencyConflict",
    "ItemError",
    "MalformedBody",
    "MethodNotAllowed",
    "MisdirectedRequest",
    "NotFound",
    "NotOffered",
    "PayloadTooLarge",
    "QueueFull",
    "RequestError",
    "RequestTimeout",
    "RunEnded",
    "RunNotFound",
    "TaskNotFound",
    "SessionBusy",
    "StaleToken",
    "StateTooLarge",
    "StreamExpired",
    "TooManyRuns",
    "Unauthorized",
    "UnexpectedAnswer",
    "UnsupportedMediaType",
    "ValidationError",
]


class AgentAppError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(AgentAppError, ValueError):
    """A setting that cannot work; the message names the setting and what would."""


class DeployError(AgentAppError):
    """A deployment could not be started, found or ended; the message tells what to look at."""


class ItemError(AgentAppError, TypeError):
    """A handler yielded, returned or emitted something that is not an item of a stream."""


class StaleToken(AgentAppError):
    """A write carried a fencing token smaller than one the store has already seen."""


class StateTooLarge(AgentAppError, ValueError):
    """A state takes more bytes than a store keeps of one; nothing was written."""


class ConnectionLost(AgentAppError):
    """A client tried as long as it may, and no server could be reached or the stream could not be taken up again.

    The run itself may go on: `client.status(run_id)` tells, once a server answers again.
    """


class EventsMissed(AgentAppError):
    """Events `start` to `stop` (both included) of a run are no longer to be had. What follows them still is."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__(f"events {start} to {stop} of this run are no longer kept")
        self.start = start
        self.stop = stop


class UnexpectedAnswer(AgentAppError):
    """What answered does not speak as an agent of ours does: a wrong URL, or something in between."""


class RequestError(AgentAppError):
    """A request was refused. `detail` is written for the person who sent it and names nothing of ours."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.retry_after = retry_after
        """Seconds after which another attempt makes sense; None: no advice."""

    def extra(self) -> Mapping[str, Any]:
        """The members of the problem document that this code needs beyond the common ones."""
        return {}


class MalformedBody(RequestError):
    """The bytes are not JSON."""

    code, status, title = "malformed_body", 400, "Malformed body"


class ValidationError(RequestError):
    """JSON of the wrong shape. `errors` holds every fault as `(JSON path, message)`."""

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
    code, status, title = "unauthorized", 401, "Unauthorized"


class Forbidden(RequestError):
    code, status, title = "forbidden", 403, "Forbidden"


class NotFound(RequestError):
    code, status, title = "not_found", 404, "Not found"


class RunNotFound(NotFound):
    """Unknown, or another user's: the two are answered alike, byte for byte."""

    code, title = "run_not_found", "Run not found"

    def __init__(self) -> None:
        super().__init__("There is no such run.")


class TaskNotFound(NotFound):
    """Unknown, forgotten, of another path, or another user's: all answered alike."""

    code, title = "task_not_found", "Task not found"

    def __init__(self) -> None:
        super().__init__("There is no such task.")


class MethodNotAllowed(RequestError):
    code, status, title = "method_not_allowed", 405, "Method not allowed"


class SessionBusy(RequestError):
    """The session has a live run; at most one runs at a time."""

    code, status, title, retryable = "session_busy", 409, "Session busy", True

    def __init__(self, active_run_id: str, *, retry_after: float = 1.0) -> None:
        super().__init__("This session has a running run; stop it or wait for its end.", retry_after=retry_after)
        self.active_run_id = active_run_id

    def extra(self) -> Mapping[str, Any]:
        return {"active_run_id": self.active_run_id}


class IdempotencyConflict(RequestError):
    """An idempotency key came a second time, with another body."""

    code, status, title = "idempotency_conflict", 409, "Idempotency conflict"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used with another body.")


class Elsewhere(RequestError):
    """The run's events are on the node that executes it, and not kept where others could read them."""

    code, status, title, retryable = "elsewhere", 409, "On another node", True

    def __init__(self, node_id: str) -> None:
        super().__init__("This run's events are on another node; ask there.")
        self.node_id = node_id

    def extra(self) -> Mapping[str, Any]:
        return {"node": self.node_id}


class RunEnded(RequestError):
    """The run is over, or has not begun: it takes no input."""

    code, status, title = "run_ended", 409, "Run not running"

    def __init__(self) -> None:
        super().__init__("This run does not run, so it takes no input.")


class StreamExpired(RequestError):
    """The run is over, and its events are not kept any more."""

    code, status, title = "stream_expired", 410, "Stream expired"

    def __init__(self) -> None:
        super().__init__("This run is over, and its events are not kept any more.")


class MisdirectedRequest(RequestError):
    """The request is for a host that this server does not answer for: see `allowed_hosts`."""

    code, status, title = "misdirected_request", 421, "Misdirected request"


class TooManyRuns(RequestError):
    """The node's limit of open runs is reached."""

    code, status, title, retryable = "rate_limited", 429, "Too many runs", True


class QueueFull(RequestError):
    """A queue is full: of runs for a session, messages for a run, or tasks."""

    code, status, title, retryable = "queue_full", 429, "Queue full", True


class NotOffered(RequestError):
    """The backend that the app was given does not have what was asked for."""

    code, status, title = "not_offered", 501, "Not offered"


class Draining(RequestError):
    """The node is shutting down and takes no new runs."""

    code, status, title, retryable = "draining", 503, "Shutting down", True

    def __init__(self) -> None:
        super().__init__("This node is shutting down; try again.", retry_after=1.0)


class BackendUnavailable(RequestError):
    """A backend or store could not be asked: nothing was started (it fails closed), or nothing is known."""

    code, status, title, retryable = "backend_unavailable", 503, "Backend unavailable", True
