"""A request to create a response, read into what the runtime needs.

Fields that only tell the agent how to work (`instructions`, `tools`, `reasoning`, `text` and so on) are passed on
to it. Fields that ask the service for something are done, or refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from quart.wrappers import Request

from ...errors import ItemError, ValidationError
from ...protocol.content import Content, DataContent, FileContent, TextContent
from ...protocol.message import Message
from ...protocol.payload import MAX_DEPTH, plain_json
from ...protocol.request import AgentRequest
from ...protocol.structure import Faults, is_boolean, is_identifier, is_string, one_of
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
from ..openai.turns import TurnId
from .envelope import ECHOED

__all__ = ["PREFIX", "Answer", "CreateResponse", "read_create"]

PREFIX = "resp_"

NOT_SUPPORTED = {
    "prompt": "prompt templates are stored at OpenAI; send `instructions` and `input`",
    "context_management": "what the agent keeps of a conversation is its own decision",
    "background_options": "a background run starts at once",
    "moderation": "moderate in the agent",
    "top_logprobs": "an agent has no log probabilities; leave it out",
}

READ = {
    **dict.fromkeys(("input", "previous_response_id", "background", "store", "stream", "stream_options"), ""),
    **dict.fromkeys(("model", "tools", "conversation", "session_id", "user_id"), ""),
    "user": "user_id",
    "max_output_tokens": "max_tokens",
}
"""Fields that are not passed on as they are."""

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


@attrs.frozen(kw_only=True)
class CreateResponse:
    """A request to create a response."""

    request: AgentRequest
    stream: bool
    background: bool
    user_id: str | None
    previous: TurnId | None
    answer: Answer | None
    """What the request answers, if it certainly is an answer."""
    said: Answer | None
    """The user's message, which is an answer if the run of `previous` has asked."""
    echo: Mapping[str, Any]


def read_create(request: Request, body: Mapping[str, Any], own_model: str) -> CreateResponse:
    """Read the request. Raises ValidationError with every fault."""
    faults = Faults()
    check_absent(body, NOT_SUPPORTED, faults)
    metadata = check_metadata(body, faults)
    flags = {name: _flag(body, name, faults) for name in ("stream", "background", "store")}
    previous = _previous(body, faults)
    session_id = _conversation(body, faults) or named_session(request, body, metadata)
    if previous is not None and body.get("conversation") is not None:
        faults.add(
            "$.previous_response_id", "and conversation cannot both be given; either of them names the session"
        )
    if flags["background"] and flags["store"] is False:
        faults.add("$.background", "needs a response that is stored; leave out store")
    if (instructions := body.get("instructions")) is not None:
        faults.check("$.instructions", instructions, is_string)
    messages, answers = _input(body, faults)
    answer = _only_answer(messages, answers, faults)
    said = None
    if len(messages) == 1 and messages[0].role == "user" and messages[0].type == "message":
        said = Answer("$.input", None, content=messages[0].content)
    if isinstance(instructions, str) and instructions:
        messages.insert(0, Message(role="system", content=instructions))
    echo = _echo(body, faults)
    model, user = body.get("model"), body.get("user_id", body.get("user"))
    asked = agent_request(
        body,
        READ,
        messages or [Message(role="user", content="")],
        faults,
        stream=flags["stream"],
        background=flags["background"],
        session_id=session_id,
        user_id=user,
        max_tokens=body.get("max_output_tokens"),
        model=None if model == own_model else model,
        tools=_tools(body, faults),
    )
    return CreateResponse(
        request=asked,
        stream=bool(flags["stream"]),
        background=bool(flags["background"]),
        user_id=user,
        previous=previous,
        answer=answer,
        said=said,
        echo=echo,
    )


def _echo(body: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    """Return the fields that the response repeats."""
    echo = {}
    for name in ECHOED:
        if body.get(name) is not None and name != "store":
            try:
                echo[name] = plain_json(body[name])
            except ItemError:
                faults.add(f"$.{name}", f"is nested deeper than {MAX_DEPTH} levels")
    return echo


def _flag(body: Mapping[str, Any], name: str, faults: Faults) -> bool | None:
    value = body.get(name)
    return value if value is not None and faults.check(f"$.{name}", value, is_boolean) else None


def _previous(body: Mapping[str, Any], faults: Faults) -> TurnId | None:
    value = body.get("previous_response_id")
    if value is None or not faults.check("$.previous_response_id", value, is_string):
        return None
    turn = TurnId.read(value, PREFIX)
    if turn is None:
        faults.add("$.previous_response_id", f"must be the id of a response, such as {PREFIX}1234abcd")
    return turn


def _conversation(body: Mapping[str, Any], faults: Faults) -> str | None:
    value = body.get("conversation")
    if isinstance(value, dict):
        value = value.get("id")
    if value is None:
        return None
    return value if faults.check("$.conversation", value, is_identifier) else None


def _tools(body: Mapping[str, Any], faults: Faults) -> list[Any] | None:
    """Return the tools. Functions get the form that `POST /process` and chat completions have."""
    tools = body.get("tools")
    found = []
    for _, tool in faults.objects("$.tools", tools):
        if tool.get("type") == "function" and "function" not in tool:
            tool = {"type": "function", "function": {name: tool[name] for name in tool if name != "type"}}
        found.append(tool)
    return None if tools is None else found


# Items of the input.


def _input(body: Mapping[str, Any], faults: Faults) -> tuple[list[Message], list[Answer]]:
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


def _only_answer(messages: list[Message], answers: list[Answer], faults: Faults) -> Answer | None:
    if not answers:
        return None
    if len(answers) > 1 or messages:
        faults.add(
            "$.input", "must have nothing beside one mcp_approval_response; send the rest in a later request"
        )
    return answers[0]


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


def not_an_answer() -> ValidationError:
    return ValidationError(
        [("$.previous_response_id", "is required with an mcp_approval_response: it names the run that asks")]
    )
