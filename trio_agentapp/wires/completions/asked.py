"""A request for a chat completion, read into what the runtime needs.

Fields that only tell the agent how to work (`tools`, `temperature`, `response_format` and so on) are passed on to
it. Fields that ask the service for something are done, or refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from quart.wrappers import Request

from ...protocol.content import Content, DataContent, RefusalContent, TextContent
from ...protocol.message import Message
from ...protocol.request import AgentRequest
from ...protocol.structure import Faults, is_boolean, is_object, is_string, one_of
from ..openai.fields import (
    agent_request,
    check_absent,
    check_metadata,
    file_of,
    named_session,
    parts_of,
    picture_of,
    refusal_of,
    sound_of,
    text_of,
)

__all__ = ["CreateCompletion", "read_create"]

NOT_SUPPORTED = {
    "functions": "use `tools`",
    "function_call": "use `tool_choice`",
    "logprobs": "an agent has no log probabilities; leave it out",
    "top_logprobs": "an agent has no log probabilities; leave it out",
    "audio": "answers are text; leave it out",
    "store": "completions are not kept; leave it out, or use the Responses API",
    "moderation": "moderate in the agent",
    "web_search_options": "give the agent a tool that searches",
}

READ = {
    **dict.fromkeys(("messages", "stream", "stream_options", "n", "modalities", "model", "metadata"), ""),
    **dict.fromkeys(("max_tokens", "session_id", "user_id"), ""),
    "user": "user_id",
    "max_completion_tokens": "max_tokens",
}
"""Fields that are not passed on as they are."""

ROLES = ("user", "assistant", "system", "developer", "tool")


@attrs.frozen(kw_only=True)
class CreateCompletion:
    """A request for a chat completion."""

    request: AgentRequest
    stream: bool
    include_usage: bool
    model: str
    user_id: str | None
    session_id: str | None
    """The session, if the request names one."""


def read_create(request: Request, body: Mapping[str, Any], own_model: str) -> CreateCompletion:
    """Read the request. Raises ValidationError with every fault."""
    faults = Faults()
    check_absent(body, NOT_SUPPORTED, faults)
    metadata = check_metadata(body, faults)
    if body.get("n") not in (None, 1) or body.get("n") is True:
        faults.add("$.n", "must be 1: a run gives one answer; send the request again for another one")
    if (modalities := body.get("modalities")) not in (None, ["text"]):
        faults.add("$.modalities", f'must be ["text"], not {modalities!r:.60}')
    stream, include_usage = body.get("stream"), False
    if stream is not None:
        faults.check("$.stream", stream, is_boolean)
    options = body.get("stream_options")
    if options is not None and faults.check("$.stream_options", options, is_object):
        include_usage = options.get("include_usage") is True
        if not stream:
            faults.add("$.stream_options", "is only for requests with stream set to true")
    session_id = named_session(request, body, metadata)
    model, user = body.get("model"), body.get("user_id", body.get("user"))
    messages = _messages(body, faults)
    asked = agent_request(
        body,
        READ,
        messages or [Message(role="user", content="")],
        faults,
        stream=stream,
        session_id=session_id,
        user_id=user,
        max_tokens=body.get("max_completion_tokens", body.get("max_tokens")),
        model=None if model == own_model else model,
        metadata=metadata or None,
    )
    return CreateCompletion(
        request=asked,
        stream=bool(stream),
        include_usage=include_usage,
        model=asked.model or own_model,
        user_id=asked.user_id,
        session_id=asked.session_id,
    )


def _messages(body: Mapping[str, Any], faults: Faults) -> list[Message]:
    value = body.get("messages")
    if value is None:
        faults.add("$.messages", "is required: a list of messages")
        return []
    if value == []:
        faults.add("$.messages", "must have at least one message")
    messages: list[Message] = []
    for path, item in faults.objects("$.messages", value):
        role: Any = item.get("role")
        if role == "function":
            faults.add(f"{path}.role", "function is not supported: use role tool, with tool_call_id")
        elif faults.check(f"{path}.role", role, one_of("role", ROLES)):
            messages += _READERS.get(role, _plain)(item, path, faults)
    return messages


def _plain(item: Mapping[str, Any], path: str, faults: Faults) -> list[Message]:
    role = item["role"]
    if item.get("content") is None:
        faults.add(f"{path}.content", "is required")
    named = item.get("name")
    if named is not None:
        faults.check(f"{path}.name", named, is_string)
    content = parts_of(item.get("content"), f"{path}.content", faults, _part)
    extra = {} if named is None else {"name": named}
    return [Message(role="system" if role == "developer" else role, content=content, extra=extra)]


def _assistant(item: Mapping[str, Any], path: str, faults: Faults) -> list[Message]:
    content = parts_of(item.get("content"), f"{path}.content", faults, _part)
    if item.get("refusal") is not None:
        content.append(RefusalContent(text_of(item["refusal"], f"{path}.refusal", faults)))
    for name, sentence in (("function_call", "use tool_calls"), ("audio", "leave it out")):
        if item.get(name) is not None:
            faults.add(f"{path}.{name}", f"is not supported: {sentence}")
    messages = [Message(role="assistant", content=content)] if content else []
    calls = item.get("tool_calls")
    for where, call in faults.objects(f"{path}.tool_calls", calls):
        messages += _call(call, where, faults)
    if not messages and not calls:
        faults.add(f"{path}.content", "is required, unless there are tool_calls")
    return messages


def _call(call: Mapping[str, Any], path: str, faults: Faults) -> list[Message]:
    function: Any = call.get("function")
    if not faults.check(f"{path}.function", function, is_object):
        return []
    fields = {
        "call_id": text_of(call.get("id"), f"{path}.id", faults),
        "name": text_of(function.get("name"), f"{path}.function.name", faults),
        "arguments": text_of(function.get("arguments"), f"{path}.function.arguments", faults),
    }
    return [Message(type="function_call", content=[DataContent(fields)])]


def _tool(item: Mapping[str, Any], path: str, faults: Faults) -> list[Message]:
    call_id = text_of(item.get("tool_call_id"), f"{path}.tool_call_id", faults)
    if item.get("content") is None:
        faults.add(f"{path}.content", "is required")
    parts = parts_of(item.get("content"), f"{path}.content", faults, _part)
    return [Message.tool_output(call_id, "".join(part.text for part in parts if isinstance(part, TextContent)))]


def _part(part: Mapping[str, Any], path: str, faults: Faults) -> Content | None:
    match part.get("type"):
        case "text":
            return TextContent(text_of(part.get("text"), f"{path}.text", faults))
        case "refusal":
            return refusal_of(part, path, faults)
        case "image_url":
            picture = part.get("image_url")
            if not faults.check(f"{path}.image_url", picture, is_object) or picture is None:
                return None
            return picture_of(picture.get("url"), f"{path}.image_url.url", faults)
        case "input_audio":
            return sound_of(part.get("input_audio"), f"{path}.input_audio", faults)
        case "file":
            file = part.get("file")
            if not faults.check(f"{path}.file", file, is_object) or file is None:
                return None
            return file_of(file, f"{path}.file", faults)
    known = "text, image_url, input_audio, file, refusal"
    faults.add(f"{path}.type", f"unknown type of content {part.get('type')!r:.40}; known: {known}")
    return None


_READERS: dict[str, Callable[[Mapping[str, Any], str, Faults], list[Message]]] = {
    "assistant": _assistant,
    "tool": _tool,
}
