"""The parameters of a request: its body, query and headers, read and checked."""

from __future__ import annotations

import logging
import re
from typing import Any

from quart.wrappers import Request

from ..errors import UnsupportedMediaType, ValidationError
from ..protocol.codec import REQUEST_FIELDS, decode_json, decode_request
from ..protocol.ids import identifier_fault, is_run_id
from ..protocol.lifecycle import RunState
from ..protocol.request import AgentRequest
from ..protocol.structure import Check, Faults, is_identifier, is_list, is_object, misspelt, one_of
from ..server.media_types import check_is_json
from ..server.request import LeanRequest

__all__ = [
    "MAX_SELECTED",
    "cursor",
    "flag",
    "idempotency_key",
    "identifier",
    "number",
    "read_body",
    "read_json",
    "read_object",
    "read_request",
    "read_selection",
    "run_id_of",
    "state_of",
]

logger = logging.getLogger("trio_agentapp.web")

MAX_SELECTED = 100
"""Runs that one `POST /runs/cancel` may name, and the most that it stops in one call."""

RUN_ID_RULE = "must be 8 to 64 of A-Z, a-z, 0-9, '_' and '-'"

_NUMBER = re.compile(r"-?[0-9]{1,18}")


async def read_request(request: Request, *, require_input: bool = True) -> AgentRequest:
    """Read the request in a body.

    Raises:
        UnsupportedMediaType, MalformedBody, ValidationError; and Quart's own for a body too large or too slow.
    """
    asked = decode_request(await read_body(request), require_input=require_input)
    if asked.extra and logger.isEnabledFor(logging.DEBUG):
        for name, near in misspelt(asked.extra, REQUEST_FIELDS).items():
            logger.debug("a request has the unknown field %r; did its sender mean %r?", name, near)
    return asked


async def read_json(request: Request) -> object:
    """Read the JSON value in a body. Raises as `read_request` does."""
    return decode_json(await read_body(request))


async def read_object(request: Request) -> dict[str, Any]:
    """Read the JSON object in a body. Raises as `read_request` does."""
    value = await read_json(request)
    if (fault := is_object(value)) is not None:
        raise ValidationError([("$", fault)])
    assert isinstance(value, dict)  # noqa: S101  it was checked
    return value


async def read_body(request: Request) -> bytes:
    """Read a body that must be JSON, without parsing it.

    Raises as `read_request` does, except for faults in the JSON.
    """
    check_is_json(request)
    if (coding := request.headers.get("Content-Encoding", "identity")).lower() != "identity":
        raise UnsupportedMediaType(f"The body must not be compressed, and its encoding is {coding[:80]!r}.")
    if isinstance(request, LeanRequest):
        return await request.get_whole()
    return await request.get_data(True, False, False)


async def read_selection(request: Request) -> tuple[list[str], RunState | None, str | None]:
    """Read the body of `POST /runs/cancel`: run ids, or a state; and a user, if it names one."""
    value = await read_object(request)
    faults = Faults()
    user_id, run_ids, state = value.get("user_id"), value.get("run_ids", []), value.get("status")
    if user_id is not None:
        faults.check("$.user_id", user_id, is_identifier)
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
    faults.settle()
    return run_ids, None if state is None else RunState(state), user_id


def _query(request: Request, name: str, check: Check) -> str | None:
    """Return a value of the query; None if it is missing. Raises ValidationError if `check` refuses it."""
    value = request.args.get(name)
    if value is not None and (fault := check(value)) is not None:
        raise ValidationError([(f"query.{name}", fault)])
    return value


def flag(request: Request, name: str) -> bool:
    value = _query(request, name, lambda text: None if text in ("0", "1", "true", "false") else "must be 0 or 1")
    return value in ("1", "true")


def identifier(request: Request, name: str) -> str | None:
    """Return the id of a user or session in the query; None if it is missing. Raises ValidationError."""
    return _query(request, name, identifier_fault)


def run_id_of(request: Request, name: str) -> str | None:
    return _query(request, name, lambda text: None if is_run_id(text) else RUN_ID_RULE)


def state_of(request: Request, name: str) -> RunState | None:
    rule = f"must be one of {', '.join(RunState)}"
    value = _query(request, name, lambda text: None if text in list(RunState) else rule)
    return None if value is None else RunState(value)


def number(request: Request, name: str, default: int, *, least: int, most: int) -> int:
    def check(text: str) -> str | None:
        right = _NUMBER.fullmatch(text) and least <= int(text) <= most
        return None if right else f"must be a whole number from {least} to {most}"

    value = _query(request, name, check)
    return default if value is None else int(value)


def cursor(request: Request) -> int:
    """Return the event number after which a reader resumes: `?starting_after=`, else `Last-Event-ID`, else -1."""
    text = request.headers.get("Last-Event-ID")
    if text is None or "starting_after" in request.args:
        return number(request, "starting_after", -1, least=-1, most=2**53)
    if not _NUMBER.fullmatch(text) or int(text) < -1:
        raise ValidationError([("header.Last-Event-ID", "must be the id of an event of this run")])
    return int(text)


def idempotency_key(request: Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and (fault := identifier_fault(key)):
        raise ValidationError([("header.Idempotency-Key", fault)])
    return key
