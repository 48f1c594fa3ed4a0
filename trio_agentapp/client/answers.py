"""What servers answer, as values and errors of ours: nothing of httpx leaves the client."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import orjson

from ..errors import AgentAppError, RequestError, UnexpectedAnswer
from ..protocol.lifecycle import CleanupResult, RunState, StopReceipt
from .feed import Cut

__all__ = ["error_of_answer", "error_of_problem", "json_of", "receipt_of", "translated"]

COMMON = frozenset(
    {"type", "title", "status", "detail", "instance", "code", "request_id", "retryable", "retry_after"}
)
GATEWAY = (502, 503, 504)
"""What proxies answer by themselves when they have lost the server behind them."""

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def translated(error: BaseException) -> Cut:
    """What a failed connection means for what was asked: nothing was sent unless httpx may have done so."""
    causes = list(_causes(error))
    hopeless = any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes)
    never_sent = isinstance(error, NEVER_SENT) or not isinstance(error, httpx.TransportError)
    if isinstance(error, httpx.TimeoutException):
        what = "no connection in time" if never_sent else "no answer in time"
    else:
        what = next((words for cause in reversed(causes) if (words := _words(cause))), type(error).__name__)
    return Cut(what, sent=not never_sent, hopeless=hopeless)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it came from: the deepest last."""
    current: BaseException | None = error
    while current is not None:
        yield current
        if isinstance(current, BaseExceptionGroup):
            current = current.exceptions[0]
        else:
            current = current.__cause__ or current.__context__


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        # Negative ones are getaddrinfo's, which has words of its own.
        number = error.errno or 0
        return os.strerror(number) if number > 0 else error.strerror or str(error)
    return "" if isinstance(error, BaseExceptionGroup) else str(error)


def _codes(cls: type[RequestError] = RequestError) -> dict[str, type[RequestError]]:
    known = {cls.code: cls}
    for below in cls.__subclasses__():
        known |= _codes(below)
    return known


def error_of_problem(document: Mapping[str, Any], retry_after: float | None = None) -> RequestError:
    """The error that a problem document tells of: of the class that has its code, with the same attributes."""
    code = str(document.get("code", "internal"))
    cls = _codes().get(code)
    error = RequestError.__new__(cls or RequestError)
    RequestError.__init__(error, str(document.get("detail") or ""), retry_after=retry_after)
    members = {name: value for name, value in document.items() if name not in COMMON}
    if isinstance(faults := members.get("errors"), list):
        members["errors"] = [(str(fault.get("loc")), str(fault.get("msg"))) for fault in faults]
    if "node" in members:
        members["node_id"] = members.pop("node")
    if cls is None:
        members |= {name: document[name] for name in ("code", "status", "title", "retryable") if name in document}
    vars(error).update(members)
    return error


def error_of_answer(response: httpx.Response) -> AgentAppError | Cut:
    """The error of an answer that is none of success; its body has been read."""
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        document = json_of(response.content)
        if isinstance(document, dict):
            return error_of_problem(document, _seconds(response.headers.get("retry-after")))
    if response.status_code in GATEWAY:
        return Cut(f"a gateway answered {response.status_code}", sent=True)
    return UnexpectedAnswer(f"{response.url} answered {response.status_code}, not as an agent does")


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdecimal() else None


def json_of(raw: bytes | str) -> Any:
    """The JSON of an answer. Raises UnexpectedAnswer: it is none."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise UnexpectedAnswer(f"the server sent something that is not JSON: {error}") from error


def receipt_of(document: Mapping[str, Any]) -> StopReceipt:
    """The receipt in the answer of a stop. Raises UnexpectedAnswer: there is none."""
    try:
        return StopReceipt(
            accepted=document["accepted"],
            stopped=document["stopped"],
            run_id=document["run_id"],
            state=RunState(document["state"]),
            node=document.get("node"),
            latency_ms=document.get("latency_ms", 0.0),
            cleanup=CleanupResult(document.get("cleanup", "none")),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnexpectedAnswer(f"the server sent no receipt: {error!r}") from error
