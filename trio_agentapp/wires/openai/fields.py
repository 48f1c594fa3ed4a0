"""Fields of a request that both protocols of OpenAI's clients have, read into an `AgentRequest`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quart.wrappers import Request

from ...errors import MalformedBody, ValidationError
from ...protocol.codec import decode_json, structure_request
from ...protocol.content import AudioContent, Content, FileContent, ImageContent, RefusalContent, TextContent
from ...protocol.ids import identifier_fault
from ...protocol.message import Message
from ...protocol.request import AgentRequest
from ...protocol.structure import Faults, is_object, is_string

__all__ = [
    "agent_request",
    "check_absent",
    "check_metadata",
    "file_of",
    "json_object",
    "model_id",
    "named_session",
    "parts_of",
    "picture_of",
    "refusal_of",
    "sound_of",
    "text_of",
]

PartOf = Callable[[Mapping[str, Any], str, Faults], Content | None]
"""Reads one part of a message that stands at a path; None after noting a fault."""

SESSION_HEADER = "X-Session-Id"


def check_absent(body: Mapping[str, Any], sentences: Mapping[str, str], faults: Faults) -> None:
    """Note the fields that are not supported, each with the sentence that says what to use."""
    for name, sentence in sentences.items():
        if body.get(name) not in (None, False, [], {}):
            faults.add(f"$.{name}", f"is not supported: {sentence}")


def check_metadata(body: Mapping[str, Any], faults: Faults) -> Mapping[str, str]:
    """Return `metadata`, an object of texts; empty if there is none or it has a fault."""
    found = body.get("metadata")
    if found is None or not faults.check("$.metadata", found, is_object):
        return {}
    wrong = [name for name, value in found.items() if not isinstance(value, str)]
    for name in wrong:
        faults.add(f"$.metadata.{name:.64}", "must be a string")
    return {} if wrong else found


def named_session(request: Request, body: Mapping[str, Any], metadata: Mapping[str, str]) -> str | None:
    """Return the session that a request names: its header, `metadata.session_id`, or a field `session_id`.

    Raises ValidationError: the header is not a session id. The others are checked with the request.
    """
    named = request.headers.get(SESSION_HEADER)
    if named is not None and (fault := identifier_fault(named)):
        raise ValidationError([(f"header.{SESSION_HEADER}", fault)])
    return named or metadata.get("session_id") or body.get("session_id")


def agent_request(
    body: Mapping[str, Any], read: Mapping[str, str], messages: Sequence[Message], faults: Faults, **fields: Any
) -> AgentRequest:
    """Make the request of the agent. Raises ValidationError with all faults.

    Fields of the body that are not in `read` are passed on as they are: the sampling parameters, those of
    `POST /process`, and in `extra` all others, which are for the agent. `read` has for each field that it names the
    one of the `AgentRequest` that is made of it, or nothing.
    """
    passed = {name: value for name, value in body.items() if name not in read}
    passed.update({name: value for name, value in fields.items() if value is not None})
    passed["input"] = list(messages)
    try:
        asked = structure_request(passed)
    except ValidationError as error:
        theirs = {f"$.{ours}": f"$.{name}" for name, ours in read.items() if ours and name in body}
        for path, message in error.errors:
            faults.add(theirs.get(path, path), message)
    faults.settle()
    return asked


def text_of(value: Any, path: str, faults: Faults) -> str:
    return value if faults.check(path, value, is_string) else ""


def picture_of(url: Any, path: str, faults: Faults) -> Content | None:
    return ImageContent(image_url=url) if faults.check(path, url, is_string) else None


def sound_of(value: Any, path: str, faults: Faults) -> Content | None:
    if not faults.check(path, value, is_object):
        return None
    return AudioContent(
        data=text_of(value.get("data"), f"{path}.data", faults),
        format=text_of(value.get("format"), f"{path}.format", faults),
    )


def file_of(value: Mapping[str, Any], path: str, faults: Faults) -> Content | None:
    names = ("file_url", "file_id", "filename", "file_data")
    fields = {name: value[name] for name in names if value.get(name) is not None}
    for name, field in fields.items():
        faults.check(f"{path}.{name}", field, is_string)
    if not fields.keys() - {"filename"}:
        faults.add(path, "needs one of file_url, file_id, file_data")
    return FileContent(**fields)


def parts_of(value: Any, path: str, faults: Faults, part_of: PartOf) -> list[Content]:
    """Return the content of a message: a text, or a list whose parts `part_of` reads."""
    if isinstance(value, str):
        return [TextContent(value)]
    parts = (part_of(part, here, faults) for here, part in faults.objects(path, value))
    return [part for part in parts if part is not None]


def refusal_of(part: Mapping[str, Any], path: str, faults: Faults) -> Content:
    return RefusalContent(text_of(part.get("refusal"), f"{path}.refusal", faults))


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text is; None if it is none."""
    try:
        value = decode_json(text.encode())
    except (MalformedBody, ValidationError):
        return None
    return value if isinstance(value, dict) else None


def model_id(name: str) -> str:
    """Return the id under which an app is listed as a model."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "agent"
