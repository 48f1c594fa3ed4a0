"""The items of a request's input, as messages and as answers to questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from ...protocol.content import Content, DataContent, FileContent, TextContent
from ...protocol.message import Message
from ...protocol.structure import Faults, is_boolean, is_string, one_of
from ..openai.fields import file_of, parts_of, picture_of, refusal_of, sound_of, text_of

__all__ = ["Answer", "input_of"]

CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
OUTPUTS = ("function_call_output", "custom_tool_call_output")


@attrs.frozen
class Answer:
    """An answer to a question of the run: an `mcp_approval_response` item, or a user's message."""

    path: str
    question: str | None
    approve: bool = True
    reason: str | None = None
    content: list[Content] | None = None


def input_of(body: Mapping[str, Any], faults: Faults) -> tuple[list[Message], list[Answer]]:
    """Return the messages in the input of a request, and the answers to questions."""
    value = body.get("input")
    if isinstance(value, str):
        return [Message(role="user", content=value)], []
    if value is None:
        faults.add("$.input", "is required: a text, or a list of items")
        return [], []
    if value == []:
        faults.add("$.input", "must have at least one item")
    messages: list[Message] = []
    answers: list[Answer] = []
    for path, item in faults.objects("$.input", value):
        if item.get("type") == "mcp_approval_response":
            answers.append(_answer(item, path, faults))
        else:
            messages += _messages_of(item, path, faults)
    return messages, answers


def _answer(item: Mapping[str, Any], path: str, faults: Faults) -> Answer:
    approve, reason = item.get("approve"), item.get("reason")
    faults.check(f"{path}.approve", approve, is_boolean)
    if reason is not None:
        faults.check(f"{path}.reason", reason, is_string)
    question = text_of(item.get("approval_request_id"), f"{path}.approval_request_id", faults)
    return Answer(path, question, approve is True, reason)


def _messages_of(item: Mapping[str, Any], path: str, faults: Faults) -> list[Message]:
    kind = item.get("type", "message" if "role" in item else None)
    if not isinstance(kind, str) or kind not in _READERS:
        known = ", ".join(sorted({*_READERS, "mcp_approval_response"}))
        hint = "; send the item itself" if kind == "item_reference" else ""
        faults.add(f"{path}.type", f"{kind!r:.60} is not supported{hint}; known: {known}")
        return []
    return _READERS[kind](item, path, faults)


def _message(item: Mapping[str, Any], path: str, faults: Faults) -> list[Message]:
    role: Any = item.get("role")
    if not faults.check(f"{path}.role", role, one_of("role", ("user", "assistant", "system", "developer"))):
        return []
    if "content" not in item:
        faults.add(f"{path}.content", "is required")
    content = parts_of(item.get("content"), f"{path}.content", faults, _part)
    return [Message(role="system" if role == "developer" else role, content=content)]


def _part(part: Mapping[str, Any], path: str, faults: Faults) -> Content | None:
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            return TextContent(text_of(part.get("text"), f"{path}.text", faults))
        case "refusal":
            return refusal_of(part, path, faults)
        case "input_image":
            if part.get("image_url") is None and part.get("file_id") is not None:
                return FileContent(file_id=text_of(part["file_id"], f"{path}.file_id", faults))
            return picture_of(part.get("image_url"), f"{path}.image_url", faults)
        case "input_file":
            return file_of(part, path, faults)
        case "input_audio":
            return sound_of(part.get("input_audio"), f"{path}.input_audio", faults)
    known = "input_text, input_image, input_file, input_audio, output_text, refusal"
    faults.add(f"{path}.type", f"unknown type of content {part.get('type')!r:.40}; known: {known}")
    return None


def _reasoning(item: Mapping[str, Any], path: str, faults: Faults) -> list[Message]:
    texts = []
    for name in ("summary", "content"):
        for where, part in faults.objects(f"{path}.{name}", item.get(name)):
            texts.append(text_of(part.get("text"), f"{where}.text", faults))
    return [Message.reasoning("\n".join(texts))] if texts else []


def _call(item: Mapping[str, Any], path: str, faults: Faults) -> list[Message]:
    fields = {
        "call_id": text_of(item.get("call_id"), f"{path}.call_id", faults),
        "name": text_of(item.get("name"), f"{path}.name", faults),
    }
    name = CALLS[item["type"]]
    fields["arguments"] = text_of(item.get(name), f"{path}.{name}", faults)
    return [Message(type="function_call", content=[DataContent(fields)])]


def _call_output(item: Mapping[str, Any], path: str, faults: Faults) -> list[Message]:
    call_id = text_of(item.get("call_id"), f"{path}.call_id", faults)
    if "output" not in item:
        faults.add(f"{path}.output", "is required")
    return [Message.tool_output(call_id, item.get("output"))]


def _own_call(item: Mapping[str, Any], path: str, faults: Faults) -> list[Message]:
    """A call that the agent has made and answered itself, sent back as part of the conversation."""
    call_id = text_of(item.get("id"), f"{path}.id", faults)
    named = {name: item.get(name) for name in ("name", "arguments", "server_label") if item.get(name) is not None}
    output = item.get("output") if item.get("error") is None else item["error"]
    return [
        Message(type="mcp_call", content=[DataContent({"call_id": call_id, **named})]),
        Message(role="tool", type="mcp_call_output", content=[DataContent({"call_id": call_id, "output": output})]),
    ]


def _as_data(item: Mapping[str, Any], _path: str, _faults: Faults) -> list[Message]:
    data = {name: value for name, value in item.items() if name != "type"}
    return [Message(role="assistant", type=item["type"], content=[DataContent(data)])]


_READERS: dict[str, Callable[[Mapping[str, Any], str, Faults], list[Message]]] = {
    "message": _message,
    "reasoning": _reasoning,
    **dict.fromkeys(CALLS, _call),
    **dict.fromkeys(OUTPUTS, _call_output),
    "mcp_call": _own_call,
    "mcp_list_tools": _as_data,
    "mcp_approval_request": _as_data,
}
