"""Messages of a run as output items of a response, and the places of the items in its output.

The shapes are those of the types `ResponseOutputItem` of OpenAI's clients. A tool call of the client
(`function_call`) stays one. A call that the agent makes and answers itself (`plugin_call`, `component_call`,
`mcp_call`) is an `mcp_call` item, which clients show and do not execute; its output becomes part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...protocol.events import ContentEvent, MessageEvent
from ...protocol.message import OUTPUT_OF
from ...protocol.payload import json_text
from ..openai.parts import call_data, part_text

__all__ = ["SERVER_LABEL", "Item", "Output", "item_id", "kind_of", "part_of"]

Item = dict[str, Any]

SERVER_LABEL = "agent"
"""The server of calls that the agent answers itself, unless the call names another."""

OWN_CALLS = frozenset({"plugin_call", "component_call", "mcp_call"})
_OUTPUTS = frozenset(OUTPUT_OF[kind] for kind in OWN_CALLS)
_PREFIXES = {"function_call": "fc_", "reasoning": "rs_", "own_call": "mcp_", "function_call_output": "fco_"}
_AS_THEY_ARE = frozenset(
    {
        "reasoning",
        "function_call",
        "function_call_output",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
    }
)


def kind_of(type: str) -> str:
    """Return what a message of a type becomes: an item type, `own_call`, `own_output`, or `none`.

    Types that the API does not know become messages.
    """
    if type in _AS_THEY_ARE:
        return type
    if type in OWN_CALLS:
        return "own_call"
    if type in _OUTPUTS:
        return "own_output"
    return "none" if type == "heartbeat" else "message"


def item_id(kind: str, message_id: str) -> str:
    prefix = _PREFIXES.get(kind)
    return message_id if prefix is None else prefix + message_id.removeprefix("msg_")


def part_of(event: ContentEvent, *, reasoning: bool = False) -> Item:
    """Return a part of a message, or of a reasoning item."""
    if reasoning:
        return {"type": "reasoning_text", "text": part_text(event)}
    if event.type == "refusal":
        return {"type": "refusal", "refusal": event.refusal}
    return {"type": "output_text", "text": part_text(event), "annotations": [], "logprobs": []}


def own_call(event: MessageEvent, data: Mapping[str, Any]) -> Item:
    return {
        "type": "mcp_call",
        "id": item_id("own_call", event.id),
        "name": _text(data, "name"),
        "arguments": _arguments(data),
        "server_label": _text(data, "server_label") or SERVER_LABEL,
        "status": "in_progress",
        "output": None,
        "error": None,
        "approval_request_id": None,
    }


def _item_of(event: MessageEvent, kind: str) -> Item:
    """Return the item of a completed message that stands for itself."""
    id, data = item_id(kind, event.id), call_data(event)
    status = "completed" if event.status == "completed" else "incomplete"
    match kind:
        case "reasoning":
            texts = [part_of(part, reasoning=True) for part in event.content or ()]
            return {"type": "reasoning", "id": id, "summary": [], "content": texts, "status": status}
        case "function_call":
            call = {"call_id": _text(data, "call_id"), "name": _text(data, "name"), "arguments": _arguments(data)}
            return {"type": "function_call", "id": id, **call, "status": status}
        case "function_call_output":
            output = {"call_id": _text(data, "call_id"), "output": json_text(data.get("output"))}
            return {"type": "function_call_output", "id": id, **output, "status": status}
        case "mcp_list_tools":
            tools = data.get("tools")
            shown = [tool for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, list | tuple) else []
            label = _text(data, "server_label") or SERVER_LABEL
            return {"type": "mcp_list_tools", "id": id, "server_label": label, "tools": shown, "error": None}
        case "mcp_approval_request":
            return _approval_request(event, data)
        case "mcp_approval_response":
            answer = data.get("answer")
            return {
                "type": "mcp_approval_response",
                "id": id,
                "approval_request_id": _text(data, "approval_request_id"),
                "approve": data.get("approve") is True,
                "reason": _text(data, "reason") or (answer if isinstance(answer, str) else None),
            }
    parts = [part_of(part) for part in event.content or ()]
    if event.message:
        parts.append({"type": "output_text", "text": event.message, "annotations": [], "logprobs": []})
    return {"type": "message", "id": id, "role": "assistant", "status": status, "content": parts}


def _approval_request(event: MessageEvent, data: Mapping[str, Any]) -> Item:
    arguments = _arguments(data)
    shown = {name: data[name] for name in ("schema", "expires_at", "fault") if data.get(name) is not None}
    if "question" in data and shown:
        # Clients show the arguments: they are where what a person has to know can stand.
        arguments = json_text({"question": data["question"], **shown})
    return {
        "type": "mcp_approval_request",
        "id": _text(data, "id") or event.id,
        "name": _text(data, "name"),
        "arguments": arguments,
        "server_label": _text(data, "server_label") or SERVER_LABEL,
    }


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return "" if value is None else json_text(value)


def _arguments(data: Mapping[str, Any]) -> str:
    found = data.get("arguments")
    return "{}" if found is None else json_text(found)


class Output:
    """The output of one response: every item has its place from the event that begins its message."""

    def __init__(self) -> None:
        self.items: dict[int, Item] = {}
        """Completed items by place."""
        self.open_calls: dict[str, tuple[int, Item]] = {}
        """Calls of the agent itself that have no output yet, by call id."""
        self._places: dict[str, int] = {}

    def place(self, message_id: str) -> int:
        """The place of the item of a message; the next one if it has none yet."""
        return self._places.setdefault(message_id, len(self._places))

    def add(self, event: MessageEvent) -> tuple[int, Item] | None:
        """Add a completed message. Return the item that it completes, and its place; None: it completes none."""
        kind = kind_of(event.type)
        if kind == "none":
            return None
        data = call_data(event)
        if kind == "own_call":
            item = own_call(event, data)
            call_id = _text(data, "call_id")
            known = not call_id or call_id in self.open_calls
            self.open_calls[event.id if known else call_id] = self.place(event.id), item
            return None
        if kind == "own_output":
            call_id = _text(data, "call_id")
            if call_id in self.open_calls:
                place, item = self.open_calls.pop(call_id)
            else:
                # The call was in an earlier turn.
                place, item = self.place(event.id), own_call(event, data)
            output = data.get("output")
            item.update(status="completed", output=None if output is None else json_text(output))
        else:
            place, item = self.place(event.id), _item_of(event, kind)
        self.items[place] = item
        return place, item

    def close(self) -> list[tuple[int, Item]]:
        """Complete the calls without an output as incomplete. Return them and their places."""
        closed = [(place, {**item, "status": "incomplete"}) for place, item in self.open_calls.values()]
        self.open_calls.clear()
        self.items.update(closed)
        return closed

    def listed(self) -> list[Item]:
        return [self.items[place] for place in sorted(self.items)]
