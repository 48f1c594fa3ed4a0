"""A message that a client sends, as the runtime takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ValidationError
from ...protocol.ids import identifier_fault
from ...protocol.message import Message
from .asked import Asked
from .parts import content_of

__all__ = ["extra_of", "message_of", "time_limit", "user_in"]

MAX_TIME_LEFT = 365 * 24 * 3600.0
"""Seconds that a caller may have left. More is no limit."""


def message_of(message: Mapping[str, Any]) -> Message:
    metadata = dict(message.get("metadata") or {})
    if isinstance(named := metadata.get("questionId"), str):
        metadata.setdefault("question_id", named)
    return Message(
        role="user" if message["role"] == "ROLE_USER" else "assistant",
        content=[content_of(part) for part in message["parts"]],
        id=message["messageId"],
        metadata=metadata or None,
    )


def time_limit(of_app: float | None, metadata: Mapping[str, Any] | None) -> float | None:
    """The seconds that a task may take: those of the app, or those that its caller has left, if they are fewer."""
    left = (metadata or {}).get("timeout_s")
    if isinstance(left, bool) or not isinstance(left, int | float) or not 0 < left <= MAX_TIME_LEFT:
        return of_app
    return float(left) if of_app is None else min(of_app, left)


def user_in(metadata: Mapping[str, Any]) -> str | None:
    """The user that a message names, for an app without authentication."""
    for name in ("user_id", "userId"):
        user = metadata.get(name)
        if isinstance(user, str) and user:
            if (fault := identifier_fault(user)) is not None:
                raise ValidationError([(f"metadata.{name}", fault)])
            return user
    return None


def extra_of(asked: Asked, params: Mapping[str, Any]) -> dict[str, Any]:
    """What a handler finds in `request.extra["a2a"]`."""
    message, configuration = params["message"], params.get("configuration", {})
    return {
        "version": asked.version.name,
        "message_id": message["messageId"],
        "metadata": params.get("metadata") or {},
        "message_metadata": message.get("metadata") or {},
        "extensions": list(asked.extensions),
        "accepted_output_modes": configuration.get("acceptedOutputModes") or [],
        "reference_task_ids": message.get("referenceTaskIds") or [],
    }
