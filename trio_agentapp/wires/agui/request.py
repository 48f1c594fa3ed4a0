"""The request of an AG-UI client (`RunAgentInput`), checked, and as an `AgentRequest`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import attrs

from ...errors import ItemError, ValidationError
from ...protocol.codec import structure_request
from ...protocol.ids import is_run_id
from ...protocol.payload import plain_json
from ...protocol.request import AgentRequest
from ...protocol.structure import Faults, is_identifier, is_string
from ..questions import Answered, QuestionId
from .messages import member, messages_in

__all__ = ["RunAgentInput", "derived_id", "read_input"]

_OPTIONS = ("on_disconnect", "multitask_strategy", "timeout_s")
"""Fields of our own requests that `forwardedProps` may have."""


@attrs.frozen(kw_only=True)
class RunAgentInput:
    """What an AG-UI client asks for."""

    thread_id: str
    run_id: str
    """As the client has given it. It need not be an id that our runs may have."""
    parent_run_id: str | None
    user_id: str | None
    messages: list[dict[str, Any]]
    answers: list[Answered]
    """Answers to questions of an earlier run, which is then watched further. None: a new run."""
    request: AgentRequest
    """Its `id` is None if `run_id` is none that our runs may have: see `derived_id`."""


def read_input(value: Mapping[str, Any]) -> RunAgentInput:
    """Check a request, whose names may have underscores or capitals. Raises ValidationError with all its faults."""
    faults = Faults()
    thread_id, run_id = member(value, "thread_id"), member(value, "run_id")
    faults.check("$.threadId", thread_id, is_identifier)
    faults.check("$.runId", run_id, is_identifier)
    parent = member(value, "parent_run_id")
    if parent is not None:
        faults.check("$.parentRunId", parent, is_identifier)
    said = value.get("messages")
    messages = messages_in(said, faults)
    answers = _answers(value.get("resume"), faults)
    forwarded = member(value, "forwarded_props")
    options = _options(forwarded, faults)
    tools = _tools(value.get("tools"), faults)
    faults.settle()
    state = value.get("state")
    fields = {
        "session_id": thread_id,
        "tools": tools,
        # Clients send their state even if they have none.
        "state": state if state not in ("", []) else None,
        "stream": True,
        **options,
        "forwarded_props": forwarded,
        "context": value.get("context"),
        "parent_run_id": parent,
    }
    try:
        plain_json({name: fields[name] for name in ("forwarded_props", "context", "tools")})
    except ItemError as error:
        raise ValidationError([("$", str(error))]) from None
    if is_run_id(run_id):
        fields["id"] = run_id
    request = structure_request(fields, require_input=False)
    request.input = messages
    return RunAgentInput(
        thread_id=thread_id,
        run_id=run_id,
        parent_run_id=parent,
        user_id=request.user_id,
        messages=said or [],
        answers=answers,
        request=request,
    )


def derived_id(user_id: str | None, thread_id: str, run_id: str) -> str:
    """Return the run id for an id that is no valid run id; always the same one for the same user and thread.

    Short ids such as `1` are common, and users choose them without knowing of each other.
    """
    return "agui-" + hashlib.sha256(json.dumps([user_id, thread_id, run_id]).encode()).hexdigest()[:32]


def _options(forwarded: Any, faults: Faults) -> dict[str, Any]:
    if not isinstance(forwarded, Mapping):
        return {}
    options = {name: forwarded[name] for name in _OPTIONS if forwarded.get(name) is not None}
    user_id = member(forwarded, "user_id")
    if user_id is not None and faults.check("$.forwardedProps.userId", user_id, is_identifier):
        options["user_id"] = user_id
    return options


def _tools(tools: Any, faults: Faults) -> list[dict[str, Any]] | None:
    """The tools of the front end, as models are given tools."""
    found = []
    for path, tool in faults.objects("$.tools", tools):
        if not faults.check(f"{path}.name", tool.get("name"), is_string):
            continue
        function = {"name": tool["name"], "description": tool.get("description", "")}
        if tool.get("parameters") is not None:
            function["parameters"] = tool["parameters"]
        found.append({"type": "function", "function": function})
    return None if tools is None else found


def _answers(resume: Any, faults: Faults) -> list[Answered]:
    found = []
    for path, entry in faults.objects("$.resume", resume):
        question = QuestionId.parse(member(entry, "interrupt_id"))
        status = entry.get("status")
        if question is None:
            faults.add(f"{path}.interruptId", "must be the id of an interrupt of this agent")
        elif status not in ("resolved", "cancelled"):
            faults.add(f"{path}.status", "must be one of resolved, cancelled")
        else:
            try:
                payload = plain_json(entry.get("payload"), f"{path}.payload")
            except ItemError as error:
                faults.add(f"{path}.payload", str(error))
                continue
            found.append(Answered(question, payload, status == "cancelled"))
    return found
