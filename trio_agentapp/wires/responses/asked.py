"""A request to create a response, read into what the runtime needs.

Fields that only tell the agent how to work (`instructions`, `tools`, `reasoning`, `text` and so on) are passed on
to it. Fields that ask the service for something are done, or refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from quart.wrappers import Request

from ...errors import ItemError, ValidationError
from ...protocol.message import Message
from ...protocol.payload import MAX_DEPTH, plain_json
from ...protocol.request import AgentRequest
from ...protocol.structure import Faults, is_boolean, is_identifier, is_string
from ..openai.fields import (
    agent_request,
    check_absent,
    check_metadata,
    named_session,
)
from ..openai.turns import TurnId
from .envelope import ECHOED
from .input_items import Answer, input_of

__all__ = ["PREFIX", "CreateResponse", "read_create"]

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
    messages, answers = input_of(body, faults)
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


def _only_answer(messages: list[Message], answers: list[Answer], faults: Faults) -> Answer | None:
    if not answers:
        return None
    if len(answers) > 1 or messages:
        faults.add(
            "$.input", "must have nothing beside one mcp_approval_response; send the rest in a later request"
        )
    return answers[0]


def not_an_answer() -> ValidationError:
    return ValidationError(
        [("$.previous_response_id", "is required with an mcp_approval_response: it names the run that asks")]
    )
