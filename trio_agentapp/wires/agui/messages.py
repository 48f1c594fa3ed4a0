"""AG-UI messages: those of a request as `Message` objects, and those of a history as AG-UI messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...protocol.content import Content, FileContent, TextContent
from ...protocol.events import MessageEvent
from ...protocol.message import OUTPUT_OF, Message
from ...protocol.payload import clean_text, json_text
from ...protocol.structure import Faults, is_identifier, is_object, is_string
from ..content_in import data_in, medium_in, text_in

__all__ = ["messages_in", "snapshot"]

_ROLES = ("developer", "system", "user", "assistant", "tool", "reasoning", "activity")


def member(fields: Mapping[str, Any], name: str) -> Any:
    """Return a member whose name is written as `toolCallId` or as `tool_call_id`; None if it is not there.

    `name` is the one with underscores.
    """
    head, *rest = name.split("_")
    camel = head + "".join(word.capitalize() for word in rest)
    return fields.get(camel) if fields.get(camel) is not None else fields.get(name)


def messages_in(values: Any, faults: Faults) -> list[Message]:
    """Return the messages of a request as `Message` objects. Notes what is wrong with them in `faults`."""
    found: list[Message] = []
    for path, value in faults.objects("$.messages", values):
        found += _message_in(value, path, faults)
    return found


def _message_in(value: dict[str, Any], path: str, faults: Faults) -> list[Message]:
    role, id = value.get("role"), value.get("id")
    if role not in _ROLES:
        faults.add(f"{path}.role", f"must be one of {', '.join(_ROLES)}")
        return []
    if id is not None and not faults.check(f"{path}.id", id, is_identifier):
        return []
    if role == "activity":
        # What a front end shows beside the conversation; it is not part of it.
        return []
    if role == "assistant":
        return _assistant(value, path, faults)
    content = _content(value.get("content"), f"{path}.content", faults)
    if role == "tool":
        return _tool(value, content, path, faults)
    if role == "reasoning":
        return [Message(type="reasoning", id=id, content=content)]
    name = value.get("name")
    metadata = {"name": name} if isinstance(name, str) else None
    return [Message(role="user" if role == "user" else "system", id=id, content=content, metadata=metadata)]


def _assistant(value: dict[str, Any], path: str, faults: Faults) -> list[Message]:
    found = []
    id, text, calls = value.get("id"), value.get("content"), member(value, "tool_calls")
    if text is not None:
        content = _content(text, f"{path}.content", faults)
        if content and content != [TextContent("")]:
            found.append(Message(id=id, content=content))
    made = (_call(call, where, faults) for where, call in faults.objects(f"{path}.toolCalls", calls))
    return found + [call for call in made if call is not None]


def _call(call: Mapping[str, Any], path: str, faults: Faults) -> Message | None:
    function: Any = call.get("function")
    if not faults.check(f"{path}.function", function, is_object):
        return None
    id, name, arguments = call.get("id"), function.get("name"), function.get("arguments", "")
    ways = ((f"{path}.id", id), (f"{path}.function.name", name), (f"{path}.function.arguments", arguments))
    if not all(faults.check(way, text, is_string) for way, text in ways):
        return None
    return Message.tool_call(name, arguments, id)


def _tool(value: dict[str, Any], content: list[Content], path: str, faults: Faults) -> list[Message]:
    call_id, error = member(value, "tool_call_id"), value.get("error")
    if not faults.check(f"{path}.toolCallId", call_id, is_string):
        return []
    output: Any = "".join(part.text for part in content if isinstance(part, TextContent))
    if isinstance(error, str) and error:
        # As the product that this one replaces has given it to handlers.
        output = f"{output}\nerror: {error}" if output else f"error: {error}"
    message = Message.tool_output(call_id, output)
    message.id = value.get("id")
    message.content += [part for part in content if not isinstance(part, TextContent)]
    return [message]


def _content(value: Any, path: str, faults: Faults) -> list[Content]:
    if isinstance(value, str):
        return [TextContent(clean_text(value))]
    if not isinstance(value, list):
        faults.add(path, "must be a string or a list of parts")
        return []
    parts = (_part(part, where, faults) for where, part in faults.objects(path, value))
    return [part for part in parts if part is not None]


def _part(part: dict[str, Any], path: str, faults: Faults) -> Content | None:
    kind = part.get("type")
    if kind == "text":
        return text_in(part, path, faults)
    if kind == "binary":
        return _binary(part, path, faults)
    if kind not in ("image", "audio", "video", "document"):
        return data_in(part, path, faults)
    source = part.get("source", {})
    if not faults.check(f"{path}.source", source, is_object):
        return None
    value, media_type = source.get("value"), str(member(source, "mime_type") or "")
    if not faults.check(f"{path}.source.value", value, is_string):
        return None
    if source.get("type") == "file":
        return FileContent(file_id=value)
    if source.get("type") == "data":
        return medium_in(kind, media_type, data=value)
    return medium_in(kind, media_type, url=value)


def _binary(part: dict[str, Any], path: str, faults: Faults) -> Content | None:
    """The part that versions before 1.0 have for all media."""
    media_type, data, name = str(member(part, "mime_type") or ""), part.get("data"), part.get("filename")
    kind, url = media_type.partition("/")[0], part.get("url")
    if isinstance(data, str):
        return medium_in(kind, media_type, data=data, filename=name)
    if not faults.check(f"{path}.url", url, is_string):
        return None
    return medium_in(kind, media_type, url=url, filename=name)


def snapshot(asked: Sequence[Mapping[str, Any]], output: Sequence[MessageEvent]) -> list[dict[str, Any]]:
    """Return the whole conversation: the messages of the request as they came, and those that the run has added."""
    messages = [dict(message) for message in asked]
    known = {message.get("id") for message in messages}
    return messages + [made for event in output if event.id not in known and (made := _shown(event)) is not None]


def _shown(event: MessageEvent) -> dict[str, Any] | None:
    text = "".join(part.text or part.refusal for part in event.content or ())
    if event.type == "reasoning":
        return {"id": event.id, "role": "reasoning", "content": text}
    if event.type == "message":
        role = event.role if event.role in ("user", "system") else "assistant"
        return {"id": event.id, "role": role, "content": text}
    data = next((part.data for part in event.content or () if isinstance(part.data, Mapping)), None)
    if data is None:
        return None
    call_id = str(data.get("call_id") or event.id)
    if event.type in OUTPUT_OF:
        function = {"name": str(data.get("name") or "tool"), "arguments": _text(data.get("arguments"))}
        calls = [{"id": call_id, "type": "function", "function": function}]
        return {"id": event.id, "role": "assistant", "toolCalls": calls}
    if event.type in OUTPUT_OF.values():
        return {"id": event.id, "role": "tool", "toolCallId": call_id, "content": _text(data.get("output"))}
    return None


def _text(value: Any) -> str:
    return "" if value is None else json_text(value)
