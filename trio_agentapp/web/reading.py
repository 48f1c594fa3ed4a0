"""What a request asks for: its body and its query, checked, or refused with a problem (WIRE, section 2)."""

from __future__ import annotations

import re
from typing import Any

from quart.wrappers import Request

from ..errors import UnsupportedMediaType, ValidationError
from ..protocol.codec import decode_json, decode_request
from ..protocol.ids import identifier_fault, is_run_id
from ..protocol.lifecycle import RunState
from ..protocol.request import AgentRequest
from ..protocol.structure import Faults, is_identifier, is_list, is_object, one_of

__all__ = [
    "MAX_SELECTED",
    "cursor",
    "flag",
    "idempotency_key",
    "identifier",
    "number",
    "read_json",
    "read_request",
    "read_selection",
    "run_id_of",
    "state_of",
]

MAX_SELECTED = 100
"""Runs that one `POST /runs/cancel` names, or finds."""

_NUMBER = re.compile(r"-?[0-9]{1,18}")


async def read_request(request: Request, *, require_input: bool = True) -> AgentRequest:
    """The request in a body.

    Raises:
        UnsupportedMediaType, MalformedBody, ValidationError; and Quart's own for a body too large or too slow.
    """
    return decode_request(await _read_body(request), require_input=require_input)


async def read_json(request: Request) -> object:
    """The JSON value in a body. Raises as `read_request` does."""
    return decode_json(await _read_body(request))


async def _read_body(request: Request) -> bytes:
    if request.mimetype not in ("", "application/json") and not request.mimetype.endswith("+json"):
        raise UnsupportedMediaType(f"The body must be application/json, and this is {request.mimetype[:80]!r}.")
    if (coding := request.headers.get("Content-Encoding", "identity")).lower() != "identity":
        raise UnsupportedMediaType(f"The body must not be compressed, and this one is {coding[:80]!r}.")
    return await request.get_data(True, False, False)


async def read_selection(request: Request) -> tuple[list[str], RunState | None, str | None]:
    """What `POST /runs/cancel` is about: run ids, or a state; and a user, if it names one."""
    value = await read_json(request)
    faults = Faults()
    run_ids: Any = []
    state: Any = None
    user_id: str | None = None
    if isinstance(value, dict):
        user_id = value.get("user_id")
        if user_id is not None:
            faults.check("$.user_id", user_id, is_identifier)
        run_ids, state = value.get("run_ids", []), value.get("status")
        if state is not None:
            faults.check("$.status", state, one_of("status", tuple(RunState)))
        if faults.check("$.run_ids", run_ids, is_list):
            if len(run_ids) > MAX_SELECTED:
                faults.add("$.run_ids", f"must name at most {MAX_SELECTED} runs, not {len(run_ids)}")
            for place, run_id in enumerate(run_ids[:MAX_SELECTED]):
                if not isinstance(run_id, str) or not is_run_id(run_id):
                    faults.add(f"$.run_ids[{place}]", RUN_ID_RULE)
        if bool(run_ids) == (state is not None):
            faults.add("$", "needs either run_ids or status")
    else:
        faults.check("$", value, is_object)
    faults.settle()
    return run_ids, None if state is None else RunState(state), user_id


RUN_ID_RULE = "must be 8 to 64 of A-Z, a-z, 0-9, '_' and '-'"


def flag(request: Request, name: str) -> bool:
    value = request.args.get(name, "0")
    if value not in ("0", "1", "true", "false"):
        raise ValidationError([(f"query.{name}", "must be 0 or 1")])
    return value in ("1", "true")


def identifier(request: Request, name: str) -> str | None:
    """A user's or session's id in the query."""
    value = request.args.get(name)
    if value is not None and (fault := identifier_fault(value)):
        raise ValidationError([(f"query.{name}", fault)])
    return value


def run_id_of(request: Request, name: str) -> str | None:
    value = request.args.get(name)
    if value is not None and not is_run_id(value):
        raise ValidationError([(f"query.{name}", RUN_ID_RULE)])
    return value


def state_of(request: Request, name: str) -> RunState | None:
    value = request.args.get(name)
    if value is not None and value not in list(RunState):
        raise ValidationError([(f"query.{name}", f"must be one of {', '.join(RunState)}")])
    return None if value is None else RunState(value)


def number(request: Request, name: str, default: int, *, least: int, most: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise ValidationError([(f"query.{name}", f"must be a whole number from {least} to {most}")])
    return int(text)


def cursor(request: Request) -> int:
    """After which event a reader goes on: `Last-Event-ID`, as browsers send it, or `?starting_after=`; else -1."""
    told = request.headers.get("Last-Event-ID")
    if told is None or "starting_after" in request.args:
        return number(request, "starting_after", -1, least=-1, most=2**53)
    if not _NUMBER.fullmatch(told) or int(told) < -1:
        raise ValidationError([("header.Last-Event-ID", "must be the id of an event of this run")])
    return int(told)


def idempotency_key(request: Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and (fault := identifier_fault(key)):
        raise ValidationError([("header.Idempotency-Key", fault)])
    return key
