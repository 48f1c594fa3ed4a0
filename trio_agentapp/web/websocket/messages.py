"""The messages that clients send on a WebSocket."""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from ...errors import MalformedBody, ValidationError
from ...protocol.codec import decode_json, request_from
from ...protocol.message import Message
from ...protocol.request import AgentRequest
from ...protocol.structure import Check, Faults, is_boolean, is_identifier, is_string, kind_of, message_from


class NotAMessage(Exception):
    """The frame is not JSON, or its type is unknown: the client does not use this protocol."""


@attrs.frozen
class Init:
    token: str | None = None


@attrs.frozen
class Start:
    id: str
    request: AgentRequest
    traceparent: str | None = None


@attrs.frozen
class Attach:
    id: str
    run_id: str
    starting_after: int = -1
    user_id: str | None = None


@attrs.frozen
class Stop:
    id: str
    wait: bool = False


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
    """A message of a known type with wrong fields. `id`: the id of the message, if that is valid."""

    id: str | None
    error: ValidationError


ClientMessage: TypeAlias = Init | Start | Attach | Stop | Input | Detach | Ping

KINDS: dict[str, type[ClientMessage]] = {
    "init": Init,
    "start": Start,
    "attach": Attach,
    "stop": Stop,
    "input": Input,
    "detach": Detach,
    "ping": Ping,
}
FIELDS = {
    name: {field.name: field.default is attrs.NOTHING for field in attrs.fields(kind)}
    for name, kind in KINDS.items()
}
"""The fields of each type, and whether they are required."""


def read(text: str) -> ClientMessage | Refused:
    """Read the message in a frame. Raises NotAMessage."""
    try:
        value = decode_json(text.encode())
    except MalformedBody as error:
        raise NotAMessage(error.detail) from error
    except ValidationError as error:
        return Refused(None, error)
    if not isinstance(value, dict):
        raise NotAMessage(f"a message is an object, not {kind_of(value)}")
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise NotAMessage(f"the type is one of {', '.join(KINDS)}")
    faults = Faults()
    try:
        fields = {name: _field(name, value.get(name), required, faults) for name, required in FIELDS[kind].items()}
        faults.settle()
    except ValidationError as error:
        id = value.get("id")
        return Refused(id if "id" in FIELDS[kind] and is_identifier(id) is None else None, error)
    return KINDS[kind](**{name: field for name, field in fields.items() if field is not None})


def _field(name: str, value: Any, required: bool, faults: Faults) -> Any:
    path = f"$.{name}"
    if value is None:
        if required:
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


def _is_sequence_number(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return f"must be an integer, not {kind_of(value)}"
    return None if -1 <= value < 2**63 else "must be a sequence number, or -1"


CHECKS: dict[str, Check] = {
    "id": is_identifier,
    "run_id": is_string,
    "starting_after": _is_sequence_number,
    "user_id": is_identifier,
    "wait": is_boolean,
    "token": is_string,
    "traceparent": is_string,
}
