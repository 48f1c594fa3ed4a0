"""The request: what a client sends to start or stop a run. Fields: docs/reference/wire.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, get_args

import attrs

from .message import Message
from .structure import Faults, messages_from

__all__ = ["STRATEGIES", "AgentRequest", "CancelAfter", "MultitaskStrategy", "OnDisconnect"]


def _positive(_instance: object, attribute: attrs.Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 < value < math.inf):
        raise ValueError(f"{attribute.name} must be a finite number greater than 0, not {value!r:.80}")


@attrs.frozen
class CancelAfter:
    """Stop the run when it has had no reader for `seconds`. Raises ValueError unless positive and finite."""

    seconds: float = attrs.field(validator=_positive)


OnDisconnect: TypeAlias = Literal["cancel", "continue"] | CancelAfter

MultitaskStrategy: TypeAlias = Literal["reject", "enqueue", "interrupt", "rollback"]
"""What happens if the session of a request has a running run: `reject` refuses the request; `enqueue` lets it wait;
`interrupt` stops the running run; `rollback` stops it and undoes its changes to state and history.
"""

STRATEGIES: tuple[MultitaskStrategy, ...] = get_args(MultitaskStrategy)


def _messages(value: str | Iterable[Message | Mapping[str, Any]]) -> list[Message]:
    if isinstance(value, str):
        return [Message(role="user", content=value)]
    faults = Faults()
    messages = messages_from(list(value), "$.input", faults)
    faults.settle()
    return messages


@attrs.define(kw_only=True)
class AgentRequest:
    """One request to the agent. None means "not given": the app's default applies.

    `input` may be a string (one user message) or a list of messages or dicts; it becomes a list of `Message`.
    `state` is what `run.state` begins with.
    `timeout_s` is in seconds. `id` is the run id that the client wants; `run_id` is read by `POST /stop` only.
    Unknown fields are in `extra`. Raises ValidationError for input that is not made of messages. The other fields
    are checked by `codec.request_from`, which every in-process entry calls.
    """

    input: list[Message] = attrs.field(factory=list, converter=_messages)
    session_id: str | None = None
    user_id: str | None = None
    id: str | None = None
    stream: bool | None = None
    model: str | None = None
    top_p: float | None = None
    temperature: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    seed: int | None = None
    tools: list[Any] | None = None
    on_disconnect: OnDisconnect | None = None
    multitask_strategy: MultitaskStrategy | None = None
    background: bool | None = None
    timeout_s: float | None = None
    run_id: str | None = None
    state: dict[str, Any] | None = None
    extra: dict[str, Any] = attrs.field(factory=dict)
