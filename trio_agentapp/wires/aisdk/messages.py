"""UI messages of a request as `Message` objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...errors import ItemError
from ...protocol.content import Content, TextContent
from ...protocol.message import Message
from ...protocol.payload import clean_text, plain_json
from ...protocol.structure import Faults, is_identifier, is_string
from ..content_in import data_in, medium_in, text_in
from ..questions import Answered, QuestionId

__all__ = ["answers_in", "messages_in"]

_ROLES = ("system", "user", "assistant")

_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^,]*)?;base64,(.*)", re.DOTALL)

_WITH_OUTPUT = ("output-available", "output-error", "output-denied")


def messages_in(values: Any, faults: Faults) -> list[Message]:
    """Return the UI messages of a request as `Message` objects. Notes what is wrong with them in `faults`."""
    found: list[Message] = []
    for path, value in faults.objects("$.messages", values, required=True):
        role, id = value.get("role"), value.get("id")
        if role not in _ROLES:
            faults.add(f"{path}.role", f"must be one of {', '.join(_ROLES)}")
            continue
        if id is not None and id != "" and not faults.check(f"{path}.id", id, is_identifier):
            continue
        parts = faults.objects(f"{path}.parts", value.get("parts"), required=True)
        if role == "assistant":
            found += _assistant(id or None, parts, faults)
        else:
            content = [made for where, part in parts if (made := _content(part, where, faults)) is not None]
            found.append(Message(role=role, id=id or None, content=content))
    return found


def _content(part: Mapping[str, Any], path: str, faults: Faults) -> Content | None:
    kind = part.get("type")
    if kind == "text":
        return text_in(part, path, faults)
    if kind == "file":
        return _file(part, path, faults)
    if isinstance(kind, str):
        return data_in(part, path, faults) if kind.startswith("data-") else None
    faults.add(f"{path}.type", "must be the type of a part")
    return None


def _file(part: Mapping[str, Any], path: str, faults: Faults) -> Content | None:
    url, media_type = part.get("url", ""), part.get("mediaType", "")
    checks = ((f"{path}.url", url), (f"{path}.mediaType", media_type))
    if not all(faults.check(where, text, is_string) for where, text in checks):
        return None
    kind, name = media_type.partition("/")[0], part.get("filename")
    inline = _DATA_URL.fullmatch(url)
    # Images and videos keep their URL as it is.
    if inline is None or kind in ("image", "video"):
        return medium_in(kind, media_type, url=url, filename=name)
    return medium_in(kind, media_type, data=inline[2], filename=name)


def _assistant(id: str | None, parts: Iterable[tuple[str, Mapping[str, Any]]], faults: Faults) -> list[Message]:
    found: list[Message] = []
    open_content: list[Content] | None = None
    for where, part in parts:
        kind = part.get("type")
        if kind in ("text", "file"):
            content = _content(part, where, faults)
            if content is None or content == TextContent(""):
                continue
            if open_content is None:
                first = not any(message.type == "message" for message in found)
                # Texts before and after a tool call are messages of their own; the first one has the id.
                found.append(Message(id=id if first else None, content=[content]))
                open_content = found[-1].content
            else:
                open_content.append(content)
            continue
        if kind == "reasoning" and faults.check(f"{where}.text", part.get("text"), is_string):
            found.append(Message.reasoning(clean_text(part["text"])))
            open_content = None
        elif isinstance(kind, str) and (kind.startswith("tool-") or kind == "dynamic-tool"):
            found += _tool(part, kind, where, faults)
            open_content = None
    return found


def _tool(part: Mapping[str, Any], kind: str, path: str, faults: Faults) -> list[Message]:
    state = part.get("state")
    if state == "input-streaming" or _question_of(part) is not None:
        return []
    call_id = part.get("toolCallId")
    name = part.get("toolName") if kind == "dynamic-tool" else kind.removeprefix("tool-")
    checks = ((f"{path}.toolCallId", call_id), (f"{path}.toolName", name))
    if not all(faults.check(where, text, is_string) for where, text in checks):
        return []
    assert isinstance(call_id, str)  # noqa: S101  were checked
    assert isinstance(name, str)  # noqa: S101
    arguments = part.get("input")
    try:
        arguments = arguments if isinstance(arguments, str) else plain_json({} if arguments is None else arguments)
        output = _output(part) if state in _WITH_OUTPUT else None
        call = Message.tool_call(clean_text(name), arguments, clean_text(call_id))
        return [call] if state not in _WITH_OUTPUT else [call, Message.tool_output(clean_text(call_id), output)]
    except ItemError as error:
        faults.add(path, str(error))
        return []


def _output(part: Mapping[str, Any]) -> Any:
    if part.get("state") == "output-available":
        return plain_json(part.get("output"))
    if part.get("state") == "output-error":
        return {"error": str(part.get("errorText") or "The tool has failed.")}
    return {"error": "The user has refused this call."}


def _question_of(part: Mapping[str, Any]) -> QuestionId | None:
    return QuestionId.parse(part.get("toolCallId"))


def answers_in(messages: Sequence[Any]) -> list[Answered]:
    """Return the answers to questions in the last step of the last message; none if it is not the agent's.

    An approval is answered by `addToolApprovalResponse`, any other question by its `reason`, or by `addToolOutput`.
    """
    last = messages[-1] if messages else None
    if not isinstance(last, Mapping) or last.get("role") != "assistant" or not isinstance(last.get("parts"), list):
        return []
    found: list[Answered] = []
    for part in reversed(last["parts"]):
        if not isinstance(part, Mapping) or part.get("type") == "step-start":
            break
        question = _question_of(part)
        answer = None if question is None else _answer(question, part)
        if answer is not None:
            found.append(answer)
    return found[::-1]


def _answer(question: QuestionId, part: Mapping[str, Any]) -> Answered | None:
    approval, state = part.get("approval"), part.get("state")
    if state == "output-available":
        return Answered(question, part.get("output"))
    if state == "output-error":
        return Answered(question, refused=True, reason=str(part.get("errorText") or ""))
    if not isinstance(approval, Mapping):
        return None
    approved = approval.get("approved")
    if state != "approval-responded" or not isinstance(approved, bool):
        return None
    reason = approval.get("reason")
    reason = reason if isinstance(reason, str) else None
    if question.kind != "input":
        return Answered(question, approved, not approved, reason)
    return Answered(question, reason or "yes", not approved, None)
