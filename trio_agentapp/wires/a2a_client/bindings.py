"""The two bindings: how an operation becomes a request of HTTP, and its answer a result."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

import attrs

from ...errors import A2AError, UnexpectedAnswer
from .card import Interface

__all__ = ["Binding", "Call", "Operation", "binding_of"]

Operation: TypeAlias = Literal["send", "stream", "get", "list", "cancel", "subscribe"]

METHODS: Mapping[str, Mapping[Operation, str]] = {
    "1.0": {
        "send": "SendMessage",
        "stream": "SendStreamingMessage",
        "get": "GetTask",
        "list": "ListTasks",
        "cancel": "CancelTask",
        "subscribe": "SubscribeToTask",
    },
    "0.3": {
        "send": "message/send",
        "stream": "message/stream",
        "get": "tasks/get",
        "cancel": "tasks/cancel",
        "subscribe": "tasks/resubscribe",
    },
}
"""The names of the operations over JSON-RPC. 0.3 has no list."""

REASONS: Mapping[str, int] = {
    "TASK_NOT_FOUND": -32001,
    "TASK_NOT_CANCELABLE": -32002,
    "PUSH_NOTIFICATION_NOT_SUPPORTED": -32003,
    "UNSUPPORTED_OPERATION": -32004,
    "CONTENT_TYPE_NOT_SUPPORTED": -32005,
    "INVALID_AGENT_RESPONSE": -32006,
    "EXTENDED_AGENT_CARD_NOT_CONFIGURED": -32007,
    "EXTENSION_SUPPORT_REQUIRED": -32008,
    "VERSION_NOT_SUPPORTED": -32009,
}
"""The errors of A2A (1.0, section 5.4)."""

NAMES = {code: reason for reason, code in REASONS.items()}

MAX_TEXT = 2000
"""Characters of an error of an agent that are kept."""


@attrs.frozen
class Call:
    """A request of HTTP. `body`: JSON; None: no body. `query`: parameters of the URL."""

    method: str
    url: str
    body: Any = None
    query: Mapping[str, str] = attrs.field(factory=dict)


class Binding(ABC):
    """One way to call an agent."""

    def __init__(self, interface: Interface) -> None:
        self.interface = interface

    @abstractmethod
    def call(self, operation: Operation, params: Mapping[str, Any]) -> Call:
        """Return the request of an operation. Raises A2AError: this version has no such operation."""

    @abstractmethod
    def result(self, document: Any) -> Any:
        """Return the result in the JSON of an answer, or of one event. Raises A2AError, UnexpectedAnswer."""

    def failure(self, document: Any) -> A2AError | None:
        """Return the error in the JSON of an answer without success; None if it says none."""
        error = document.get("error") if isinstance(document, dict) else None
        return _error(error) if isinstance(error, dict) else None


class JsonRpc(Binding):
    """JSON-RPC 2.0 (A2A 1.0, section 9; 0.3, section 3.2.1)."""

    def __init__(self, interface: Interface) -> None:
        super().__init__(interface)
        self._ids = itertools.count(1)

    def call(self, operation: Operation, params: Mapping[str, Any]) -> Call:
        method = METHODS[self.interface.version].get(operation)
        if method is None:
            raise A2AError(f"A2A {self.interface.version} has no operation to {operation} tasks", code=-32601)
        tenant = {} if self.interface.tenant is None else {"tenant": self.interface.tenant}
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": {**tenant, **params}}
        return Call("POST", self.interface.url, body)

    def result(self, document: Any) -> Any:
        if (error := self.failure(document)) is not None:
            raise error
        if not isinstance(document, dict) or "result" not in document:
            raise UnexpectedAnswer("the agent sent something that is not an answer of JSON-RPC")
        return document["result"]


class HttpJson(Binding):
    """HTTP+JSON (A2A 1.0, section 11)."""

    def call(self, operation: Operation, params: Mapping[str, Any]) -> Call:
        base = self.interface.url.rstrip("/")
        if self.interface.tenant is not None:
            base += "/" + quote(self.interface.tenant, safe="")
        if operation in ("send", "stream"):
            return Call("POST", f"{base}/message:{operation}", params)
        if operation == "list":
            return Call("GET", f"{base}/tasks", query=_query(params))
        task = f"{base}/tasks/{quote(str(params['id']), safe='')}"
        rest = {name: value for name, value in params.items() if name != "id"}
        if operation == "get":
            return Call("GET", task, query=_query(rest))
        if operation == "subscribe":
            return Call("POST", f"{task}:subscribe")
        return Call("POST", f"{task}:cancel", rest)

    def result(self, document: Any) -> Any:
        if (error := self.failure(document)) is not None:
            raise error
        return document


def binding_of(interface: Interface) -> Binding:
    return HttpJson(interface) if interface.binding == "HTTP+JSON" else JsonRpc(interface)


def _query(params: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in params.items()
        if value is not None
    }


def _error(error: Mapping[str, Any]) -> A2AError:
    """The error of JSON-RPC, or the `google.rpc.Status` of HTTP+JSON: one with `data`, the other with `details`."""
    code, details = error.get("code"), error.get("data", error.get("details"))
    listed = details if isinstance(details, list) else []
    reasons = [each.get("reason") for each in listed if isinstance(each, dict)]
    reason = next((each for each in reasons if isinstance(each, str)), "")
    status = None
    if reason in REASONS:
        code = REASONS[reason]
    elif isinstance(code, int) and code >= 0:
        # That of HTTP.
        code, status = None, code
    if not isinstance(code, int):
        code = None
    text = error.get("message")
    return A2AError(
        f"the agent refused: {text[:MAX_TEXT] if isinstance(text, str) and text else 'it gave no reason'}",
        code=code,
        reason=reason[:100] or NAMES.get(code or 0, ""),
        status=status,
        data=details,
    )
