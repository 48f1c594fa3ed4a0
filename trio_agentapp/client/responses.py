"""Reads responses: JSON, stop receipts, and problem documents, which become errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from ..errors import AgentAppError, RequestError, UnexpectedAnswer
from ..protocol.exact_json import exact_loads
from ..protocol.lifecycle import CleanupResult, RunState, StopReceipt
from .failures import ConnectionFailed

__all__ = ["error_of_problem", "error_of_response", "json_of", "receipt_of"]

STANDARD_MEMBERS = frozenset(
    {"type", "title", "status", "detail", "instance", "code", "request_id", "retryable", "retry_after"}
)
GATEWAY = (502, 503, 504)
"""Statuses of proxies that cannot reach the server behind them."""


def json_of(raw: bytes | str) -> Any:
    """Parse the JSON of an answer. Raises UnexpectedAnswer if it is not JSON."""
    try:
        return exact_loads(raw)
    except ValueError as error:
        raise UnexpectedAnswer(f"the server sent something that is not JSON: {error}") from error


def receipt_of(document: Mapping[str, Any]) -> StopReceipt:
    """Build the receipt in the answer to a stop. Raises UnexpectedAnswer if the answer is not a receipt."""
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


def error_of_response(response: httpx.Response) -> AgentAppError | ConnectionFailed:
    """Build the error of a response that is not a success. Its body must have been read."""
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        document = json_of(response.content)
        if isinstance(document, dict):
            return error_of_problem(document, _seconds(response.headers.get("retry-after")))
    if response.status_code in GATEWAY:
        return ConnectionFailed(f"a gateway answered {response.status_code}", sent=True)
    return UnexpectedAnswer(
        f"{response.url} answered {response.status_code} without a problem document, so it is not an agent"
    )


def error_of_problem(document: Mapping[str, Any], retry_after: float | None = None) -> RequestError:
    """Build the error that a problem document describes: of the class with its code, with the same attributes."""
    cls = _classes().get(str(document.get("code", "internal")))
    error = RequestError.__new__(cls or RequestError)
    RequestError.__init__(error, str(document.get("detail") or ""), retry_after=retry_after)
    members = {name: value for name, value in document.items() if name not in STANDARD_MEMBERS}
    if isinstance(faults := members.get("errors"), list):
        members["errors"] = [(str(fault.get("loc")), str(fault.get("msg"))) for fault in faults]
    if "node" in members:
        members["node_id"] = members.pop("node")
    if cls is None:
        members |= {name: document[name] for name in ("code", "status", "title", "retryable") if name in document}
    vars(error).update(members)
    return error


def _classes(cls: type[RequestError] = RequestError) -> dict[str, type[RequestError]]:
    known = {cls.code: cls}
    for subclass in cls.__subclasses__():
        known |= _classes(subclass)
    return known


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdecimal() else None
