"""Messages: what a conversation is made of. Roles and types: docs/reference/wire.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import attrs

from .content import Content, DataContent, TextContent
from .ids import identifier_fault, new_call_id
from .payload import json_bytes

__all__ = [
    "INTERRUPTED",
    "MESSAGE_FIELDS",
    "MESSAGE_TYPES",
    "Message",
    "MessageType",
    "OUTPUT_OF",
    "ROLES",
    "Role",
    "latest_turn",
]

Role: TypeAlias = Literal["user", "assistant", "system", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)

MessageType: TypeAlias = Literal[
    "message",
    "function_call",
    "function_call_output",
    "plugin_call",
    "plugin_call_output",
    "component_call",
    "component_call_output",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "mcp_call_output",
    "reasoning",
    "heartbeat",
    "error",
]
MESSAGE_TYPES: tuple[MessageType, ...] = get_args(MessageType)
"""The types that this package knows. Any other type is passed on; agent and clients agree on its meaning."""

MESSAGE_FIELDS = frozenset(
    (
        *("role", "type", "content", "id", "code", "message", "usage", "metadata"),
        # Fields of a message in a stream, which a client may send back.
        *("sequence_number", "object", "status", "error"),
    )
)
"""Fields that are never in `Message.extra`."""

OUTPUT_OF: Mapping[str, MessageType] = {
    "function_call": "function_call_output",
    "plugin_call": "plugin_call_output",
    "component_call": "component_call_output",
    "mcp_call": "mcp_call_output",
}
"""For each type of tool call, the type of the message that answers it."""

INTERRUPTED = "This call was stopped before it had a result."
"""The result of such a call that a model gets, because providers refuse a conversation without one."""


def _contents(value: str | Iterable[Content] | None) -> list[Content]:
    if value is None:
        return []
    if isinstance(value, str):
        return [TextContent(value)]
    contents = list(value)
    for content in contents:
        if not isinstance(content, Content):
            raise TypeError(
                f"the content of a message must be text or content objects, not {type(content).__name__}"
            )
    return contents


def _is_role(_instance: object, _attribute: attrs.Attribute[str], value: str) -> None:
    if value not in ROLES:
        raise ValueError(f"unknown role {value!r:.80}; known: {', '.join(ROLES)}")


def _is_type(_instance: object, _attribute: attrs.Attribute[str], value: str) -> None:
    if identifier_fault(value):
        raise ValueError(f"the type of a message must be a name such as 'message', not {value!r:.80}")


@attrs.define
class Message:
    """One message.

    `content` may be given as a plain string and is then one `TextContent`. `code` and `message` belong to
    messages of type `error`; `usage` and `metadata` are free JSON objects. `type` is one of `MESSAGE_TYPES` or any
    other name of 1 to 256 characters. `extra` has the fields that the protocol does not know.
    Raises ValueError for an unknown role or an invalid type, TypeError for invalid content.
    """

    role: Role = attrs.field(default="assistant", validator=_is_role)
    type: str = attrs.field(default="message", validator=_is_type)
    content: list[Content] = attrs.field(factory=list, converter=_contents)
    id: str | None = None
    code: str | None = None
    message: str | None = None
    usage: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.content if isinstance(part, TextContent))

    @classmethod
    def reasoning(cls, text: str, id: str | None = None) -> Message:
        """The reasoning of a model before its answer."""
        return cls(type="reasoning", content=text, id=id)

    @classmethod
    def tool_call(cls, name: str, arguments: Mapping[str, Any] | str, call_id: str | None = None) -> Message:
        """A tool call. Arguments that are an object are encoded as a JSON string, as models send them.

        Without `call_id` a new one is made; read it from `content[0].data["call_id"]`.
        Raises ItemError, a TypeError, if the arguments have no form in JSON.
        """
        if not isinstance(arguments, str):
            arguments = json_bytes(arguments).decode()
        if call_id is None:
            call_id = new_call_id()
        return cls(
            type="function_call",
            content=[DataContent({"call_id": call_id, "name": name, "arguments": arguments})],
        )

    @classmethod
    def tool_output(cls, call_id: str, output: Any) -> Message:
        """The output of the tool call `call_id`: any JSON value."""
        return cls(
            role="tool",
            type="function_call_output",
            content=[DataContent({"call_id": call_id, "output": output})],
        )


def latest_turn(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the messages after the agent's last one.

    They are the new ones of a request that repeats its history.
    """
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].role == "assistant":
            return messages[place + 1 :]
    return messages
