"""Decodes requests and encodes events. `docs/reference/wire.md` describes the JSON of both."""

from __future__ import annotations

import codecs
import json
import math
from functools import lru_cache
from typing import Any

import orjson

from ..errors import ItemError, MalformedBody, ValidationError
from ..refusals import note_refusal
from .events import ContentEvent, Event, Failure, MessageEvent, StateEvent, mass
from .exact_json import INTEGERS_OF_ORJSON, may_exceed_64_bits
from .ids import is_run_id
from .message import Message
from .payload import plain_json
from .request import STRATEGIES, AgentRequest, CancelAfter
from .shared_state import MAX_STATE_BYTES
from .structure import (
    Check,
    Faults,
    hint_misspelt,
    instead,
    is_boolean,
    is_identifier,
    is_list,
    is_string,
    kind_of,
    messages_from,
)

__all__ = ["REQUEST_FIELDS", "decode_json", "decode_request", "encode_event", "request_from", "structure_request"]


def decode_json(raw: bytes) -> object:
    """Return the JSON value of a body. A byte order mark before it is skipped.

    Raises ValidationError if the body is empty or has an integer beyond 64 bits, which could not be kept exactly.
    Raises MalformedBody if it is not JSON: bad syntax, bad UTF-8, NaN or infinity (also by overflow, `1e400`), more
    than 1024 levels of nesting, lone surrogates.
    """
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if not raw.strip():
        raise ValidationError([("$", "the body is empty; a JSON object is needed")])
    try:
        value: object = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "UTF-8" in error.msg:
            raise MalformedBody("The body is not JSON: it is not valid UTF-8.") from error
        if "limit" in error.msg:  # "depth limit exceeded", in older versions "Recursion limit reached"
            note_refusal("nesting")
        # The message of orjson has a position and a rule. It quotes neither the body nor this program's code.
        place = f"line {error.lineno}, column {error.colno}"
        raise MalformedBody(f"The body is not JSON: {error.msg} ({place}).") from error
    if may_exceed_64_bits(raw):
        _check_integers(raw)
    return value


def _check_integers(raw: bytes) -> None:
    """Refuse integers that orjson reads as floats; the standard library's parser hands over their digits."""

    def check(digits: str) -> None:
        # Python itself refuses to convert thousands of digits.
        if len(digits) > 20 or int(digits) not in INTEGERS_OF_ORJSON:
            raise ValidationError([("$", f"{digits:.40} is an integer beyond 64 bits; send it as a string")])

    try:
        json.loads(raw, parse_int=check)
    except RecursionError:
        note_refusal("nesting")
        raise MalformedBody("The body is nested too deeply to be read.") from None


def decode_request(raw: bytes, *, require_input: bool = True) -> AgentRequest:
    """Return the request in a body. `require_input=False` is for stops, which need no input.

    Raises MalformedBody as `decode_json` does, and ValidationError with the path of every fault (the first 100).
    """
    return structure_request(decode_json(raw), require_input=require_input)


def structure_request(value: object, *, require_input: bool = True) -> AgentRequest:
    """Return the request in a JSON value. Raises as `decode_request` does."""
    if not isinstance(value, dict):
        raise ValidationError([("$", f"must be an object, not {kind_of(value)}")])
    faults = Faults()
    fields = {name: _scalar(name, value.get(name), faults) for name in _CHECKS}
    messages = value.get("input")
    if isinstance(messages, str):
        # As in OpenAI's Responses API, a string is one message of the user.
        messages = [Message(role="user", content=messages)]
    elif messages is not None:
        messages = messages_from(messages, "$.input", faults)
        if require_input and value["input"] == []:
            faults.add("$.input", "must have at least one message")
    elif require_input:
        faults.add("$.input", f"is required{instead(value, 'input', ('messages', 'message', 'prompt', 'query'))}")
    if faults.found:
        hint_misspelt(value, REQUEST_FIELDS, "input", "$", faults)
    faults.settle()
    extra = {name: item for name, item in value.items() if name not in REQUEST_FIELDS}
    return AgentRequest(input=messages or [], extra=extra, **fields)


def request_from(obj: AgentRequest | dict[str, Any] | str) -> AgentRequest:
    """Return a checked request, made from a request, a dict of its fields, or the text of the user.

    Raises ValidationError as `decode_request` does, also for a request whose fields have wrong values.
    """
    if isinstance(obj, AgentRequest):
        faults = Faults()
        for name in _CHECKS:
            _scalar(name, getattr(obj, name), faults)
        faults.settle()
        return obj
    if isinstance(obj, str):
        return AgentRequest(input=obj)
    return structure_request(obj)


def _scalar(name: str, value: Any, faults: Faults) -> Any:
    """Return a field's value, or None after noting what is wrong with it."""
    if value is None or not faults.check(f"$.{name}", value, _CHECKS[name]):
        return None
    if name == "on_disconnect" and isinstance(value, dict):
        return CancelAfter(value["cancel_after"])
    return value


def _is_number(value: Any) -> str | None:
    # In Python a bool is an int.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"must be a number, not {kind_of(value)}"
    return None if math.isfinite(value) else "must be finite"


def _is_integer(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return "must be an integer" if isinstance(value, float) else f"must be an integer, not {kind_of(value)}"
    return None


def _is_duration(value: Any) -> str | None:
    return _is_number(value) or (None if value > 0 else "must be greater than 0")


def _is_run_id(value: Any) -> str | None:
    return is_string(value) or (None if is_run_id(value) else "must be 8 to 64 of A-Z, a-z, 0-9, '_' and '-'")


def _is_stop(value: Any) -> str | None:
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(word, str) for word in value)):
        return None
    return "must be a string or a list of strings"


def _is_tools(value: Any) -> str | None:
    return is_list(value) or (
        None if all(isinstance(tool, dict) for tool in value) else "must be a list of objects"
    )


def _is_on_disconnect(value: Any) -> str | None:
    if isinstance(value, CancelAfter) or value in ("cancel", "continue"):
        return None
    if isinstance(value, dict) and value.keys() == {"cancel_after"}:
        fault = _is_duration(value["cancel_after"])
        return None if fault is None else f"cancel_after {fault}"
    return 'must be "cancel", "continue" or {"cancel_after": seconds}'


def _is_strategy(value: Any) -> str | None:
    return None if value in STRATEGIES else f"must be one of {', '.join(STRATEGIES)}"


def _is_state(value: Any) -> str | None:
    if not isinstance(value, dict):
        return f"must be an object, not {kind_of(value)}"
    if mass(value) > MAX_STATE_BYTES:
        return f"must have at most {MAX_STATE_BYTES} bytes"
    try:
        plain_json(value)
    except ItemError as error:
        return f"cannot be kept: {error}"
    return None


_CHECKS: dict[str, Check] = {
    "session_id": is_identifier,
    "user_id": is_identifier,
    "id": _is_run_id,
    "stream": is_boolean,
    "model": is_string,
    "top_p": _is_number,
    "temperature": _is_number,
    "frequency_penalty": _is_number,
    "presence_penalty": _is_number,
    "max_tokens": _is_integer,
    "stop": _is_stop,
    "n": _is_integer,
    "seed": _is_integer,
    "tools": _is_tools,
    "on_disconnect": _is_on_disconnect,
    "multitask_strategy": _is_strategy,
    "background": is_boolean,
    "timeout_s": _is_duration,
    "run_id": _is_run_id,
    "state": _is_state,
}
REQUEST_FIELDS = frozenset({"input", *_CHECKS})


def encode_event(event: Event) -> bytes:
    """Return the compact JSON of an event. It is made once and kept on the event.

    Nested events are not encoded again: their bytes become part of the message's and of the response's.
    Raises TypeError (orjson's) for an event whose payload has no JSON.
    """
    encoded = event.encoded
    if encoded is None:
        if isinstance(event, ContentEvent):
            encoded = _content_json(event)
        elif isinstance(event, MessageEvent):
            encoded = _message_json(event)
        elif isinstance(event, StateEvent):
            encoded = _state_json(event)
        else:
            encoded = _dumps(
                {
                    "sequence_number": event.sequence_number,
                    "object": "response",
                    "status": event.status,
                    "error": _failure(event.error),
                    "id": event.id,
                    "created_at": event.created_at,
                    "completed_at": event.completed_at,
                    "output": _nested(event.output),
                    "usage": event.usage,
                    "session_id": event.session_id,
                }
            )
        # The event is frozen for its users. This only caches its JSON.
        event.encoded = encoded  # type: ignore[misc]
    return encoded


# Nearly every event of a run is a text delta. A template encodes it in half the time that a dict takes; see
# `docs/discussion/hot-path.md`.
_TEXT_DELTA = (
    b'{"sequence_number":%d,"object":"content","status":"in_progress","error":null,'
    b'"type":"text","index":%d,"delta":true,"msg_id":%b,"text":%b}'
)


def _content_json(event: ContentEvent) -> bytes:
    if event.payload is None and event.delta and event.status == "in_progress" and event.error is None:
        return _TEXT_DELTA % (
            event.sequence_number,
            event.index,
            _quoted(event.msg_id),
            orjson.dumps(event.text),
        )
    fields: dict[str, Any] = {
        "sequence_number": event.sequence_number,
        "object": "content",
        "status": event.status,
        "error": _failure(event.error),
        "type": event.type,
        "index": event.index,
        "delta": event.delta,
        "msg_id": event.msg_id,
    }
    if event.payload is None:
        fields["text"] = event.text
    else:
        fields.update(event.payload)
    return _dumps(fields)


def _message_json(event: MessageEvent) -> bytes:
    return _dumps(
        {
            "sequence_number": event.sequence_number,
            "object": "message",
            "status": event.status,
            "error": _failure(event.error),
            "id": event.id,
            "type": event.type,
            "role": event.role,
            "content": _nested(event.content),
            "code": event.code,
            "message": event.message,
            "usage": event.usage,
            "metadata": event.metadata,
            **(event.extra or {}),
        }
    )


def _state_json(event: StateEvent) -> bytes:
    return _dumps(
        {
            "sequence_number": event.sequence_number,
            "object": "state",
            "status": event.status,
            "error": _failure(event.error),
            "delta": event.delta,
            "state": event.state,
            "patch": event.patch,
        }
    )


@lru_cache(maxsize=1024)
def _quoted(msg_id: str) -> bytes:
    """Return a message's id as JSON; it is the same for each of its deltas."""
    return _dumps(msg_id)


def _dumps(value: object) -> bytes:
    """Return JSON as bytes of exactly its size. orjson allocates at least 4 KiB, which an event would keep."""
    return bytes(memoryview(orjson.dumps(value)))


def _nested(
    events: tuple[ContentEvent, ...] | tuple[MessageEvent, ...] | None,
) -> list[orjson.Fragment] | None:
    return None if events is None else [orjson.Fragment(encode_event(event)) for event in events]


def _failure(failure: Failure | None) -> dict[str, str] | None:
    return None if failure is None else {"code": failure.code, "message": failure.message}
