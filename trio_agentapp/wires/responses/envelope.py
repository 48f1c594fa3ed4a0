"""The response object around the output: what was asked, and how far it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import orjson

from ...protocol.events import ResponseEvent
from ..openai.usage import usage_of

__all__ = ["ECHOED", "Envelope", "Remembered", "ending_of", "response_event_of"]

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled", "incomplete"]

ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": None,
    "store": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""Fields of a request that its response repeats, and their values if the request has none."""

KEPT = 1000
KEPT_BYTES = 4 * 1024 * 1024
"""Requests whose fields one node keeps for those who retrieve the response, and their bytes."""


@attrs.frozen(kw_only=True)
class Envelope:
    """A response without its output."""

    id: str
    model: str
    session_id: str
    background: bool = False
    echo: Mapping[str, Any] = attrs.field(factory=dict)

    def body(
        self,
        status: Status,
        created_at: int,
        output: Sequence[Any] = (),
        *,
        completed_at: int | None = None,
        usage: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
        incomplete: str | None = None,
    ) -> dict[str, Any]:
        tokens = usage_of(usage)
        return {
            "id": self.id,
            "object": "response",
            "created_at": created_at,
            "completed_at": completed_at,
            "status": status,
            "background": self.background,
            "error": error,
            "incomplete_details": None if incomplete is None else {"reason": incomplete},
            "model": self.model,
            "conversation": {"id": self.session_id},
            "output": list(output),
            "usage": None if tokens is None else tokens.of_response(),
            **ECHOED,
            **self.echo,
        }


class Remembered:
    """What the latest requests of this node asked for: `GET /responses/{id}` repeats it. Bounded."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def put(self, id: str, fields: Mapping[str, Any]) -> None:
        self._size -= len(self._kept.pop(id, b""))
        kept = self._kept[id] = bytes(memoryview(orjson.dumps(fields)))
        self._size += len(kept)
        while len(self._kept) > KEPT or self._size > KEPT_BYTES:
            self._size -= len(self._kept.popitem(last=False)[1])

    def get(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self._kept.get(id, b"{}"))
        return found


def ending_of(end: ResponseEvent) -> tuple[Status, dict[str, Any]]:
    """Return the status of a run's response at its end, and the fields that belong to it."""
    fields: dict[str, Any] = {"usage": end.usage, "completed_at": end.completed_at}
    if end.status == "completed":
        return "completed", fields
    if end.status == "canceled":
        return "cancelled", fields
    code = "failed" if end.error is None else end.error.code
    if code == "answer_too_large":
        return "incomplete", {**fields, "incomplete": "max_output_tokens"}
    message = "The run failed." if end.error is None else end.error.message
    # `code` is one of the values that OpenAI's types list; `type` is the reason of this runtime.
    kind = "invalid_prompt" if end.status == "rejected" else "server_error"
    return "failed", {**fields, "error": {"code": kind, "message": message, "type": code}}


def response_event_of(status: Status) -> str:
    """The type of the last event. `cancelled` has no type of its own: it is sent as `response.incomplete`."""
    return {"completed": "response.completed", "failed": "response.failed"}.get(status, "response.incomplete")
