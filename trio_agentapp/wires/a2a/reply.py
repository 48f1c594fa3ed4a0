"""A bare message as the answer to an A2A client, which then gets no task."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from ...protocol.content import Content
from ...protocol.message import Message

__all__ = ["a2a_reply", "is_reply"]

PREFIX = "a2a-reply-"
"""Of the ids of such messages. The id is in each event of a message, so every node sees what it is."""


def a2a_reply(content: str | Iterable[Content], *, metadata: Mapping[str, Any] | None = None) -> Message:
    """Return a message that answers an A2A client without a task: `SendMessage` returns it as `message`.

        @app.query()
        async def chat(msgs):
            yield a2a_reply("I am Friday. Ask me for a report.")

    It has to be all that the handler yields; otherwise the client gets a task, with this message as an artifact.
    Clients of other protocols see an ordinary message.
    """
    return Message(id=PREFIX + secrets.token_hex(12), content=content, metadata=metadata)


def is_reply(message_id: str) -> bool:
    """Whether the message of this id was made by `a2a_reply`."""
    return message_id.startswith(PREFIX)
