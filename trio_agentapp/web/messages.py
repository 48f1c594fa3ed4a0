"""What clients say on a WebSocket (WIRE, section 4)."""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from ..errors import MalformedBody, ValidationError
from ..protocol.codec import decode_json, request_from
from ..protocol.message import Message
from ..protocol.request import AgentRequest
from ..protocol.structure import (
    Check,
    Faults,
    is_boolean,
    is_identifier,
    is_string,
    kind_of,
    message_from,
)

__all__ = [
    "Attach",
    "ClientMessage",
    "Detach",
    "Init",
    "Input",
    "NotAMessage",
    "Ping",
    "Refused",
    "Start",
    "Stop",
    "read",
]


class NotAMessage(Exception):
    """Not JSON, or of no known type: its sender does not speak this protocol."""


@attrs.frozen
class Init:
    token: str | None


@attrs.frozen
class Start:
    id: str
    request: AgentRequest


@attrs.frozen
class Attach:
    id: str
    run_id: str
    after: int
    user_id: str | None


@attrs.frozen
class Stop:
    id: str
    wait: bool


@attrs.frozen
class Input:
    id: str
    message: Message


@attrs.frozen
class Detach:
    id: str


@attrs.frozen
class Ping:
    pass


@attrs.frozen
class Refused:
    """Of a known type, with wrong fields. `id`: whose it is, if that can be told."""

    id: str | None
    error: ValidationError


ClientMessage: TypeAlias = Init | Start | Attach | Stop | Input | Detach | Ping


def read(text: str) -> ClientMessage | Refused:
    """The message in a frame. Raises NotAMessage."""
    try:
        value = decode_json(text.encode())
    except MalformedBody as error:
        raise NotAMessage(error.detail) from error
    except ValidationError as error:
        return Refused(None, error)
    if not isinstance(value, dict):
        raise NotAMessage(f"a message is an object, not {kind_of(value)}")
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise NotAMessage(f"the type is one of {', '.join(FIELDS)}")
    faults = Faults()
    try:
        fields = {name: _field(name, value.get(name), needed, faults) for name, needed in FIELDS[kind].items()}
        faults.settle()
    except ValidationError as error:
        named = value.get("id")
        return Refused(named if "id" in FIELDS[kind] and is_identifier(named) is None else None, error)
    return _made(kind, fields)


FIELDS: dict[str, dict[str, bool]] = {
    "init": {"token": False},
    "start": {"id": True, "request": True},
    "attach": {"id": True, "run_id": True, "starting_after": False, "user_id": False},
    "stop": {"id": True, "wait": False},
    "input": {"id": True, "message": True},
    "detach": {"id": True},
    "ping": {},
}
"""The fields of each type, and whether they are needed."""


def _field(name: str, value: Any, needed: bool, faults: Faults) -> Any:
    path = f"$.{name}"
    if value is None:
        if needed:
            faults.add(path, "is required")
        return None
    if name == "message":
        return message_from(value, path, faults)
    if name == "request":
        return _request(value, path, faults)
    return value if faults.check(path, value, CHECKS[name]) else None


def _request(value: Any, path: str, faults: Faults) -> AgentRequest | None:
    if not isinstance(value, dict):
        faults.add(path, f"must be an object, not {kind_of(value)}")
        return None
    try:
        return request_from(value)
    except ValidationError as error:
        for loc, message in error.errors:
            faults.add(path + loc.removeprefix("$"), message)
        return None


def _is_number(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return f"must be an integer, not {kind_of(value)}"
    return None if -1 <= value < 2**63 else "must be a sequence number, or -1"


CHECKS: dict[str, Check] = {
    "id": is_identifier,
    "run_id": is_string,
    "starting_after": _is_number,
    "user_id": is_identifier,
    "wait": is_boolean,
    "token": is_string,
}


def _made(kind: str, fields: dict[str, Any]) -> ClientMessage:
    match kind:
        case "init":
            return Init(fields["token"])
        case "start":
            return Start(fields["id"], fields["request"])
        case "attach":
            after = fields["starting_after"]
            return Attach(fields["id"], fields["run_id"], -1 if after is None else after, fields["user_id"])
        case "stop":
            return Stop(fields["id"], bool(fields["wait"]))
        case "input":
            return Input(fields["id"], fields["message"])
        case "detach":
            return Detach(fields["id"])
    return Ping()
