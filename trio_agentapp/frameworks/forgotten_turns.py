"""Reports turns that are not saved, because the state of the session is too large for the store."""

from __future__ import annotations

import logging

from ..errors import StateTooLarge
from ..protocol.message import Message
from .items import current_items

__all__ = ["report_forgotten"]

logger = logging.getLogger("trio_agentapp.frameworks")

FORGOTTEN = "The conversation is too long to be kept: the next turn will not know of this one. Begin a new session."


async def report_forgotten(session_id: str, error: StateTooLarge) -> None:
    """Mark the turn as not saved. Log it for the operator, and send the client a message of type `error`.

    The client gets the message after the answer. After a stop the client gets no more messages.
    """
    items = current_items.get()
    items.forgotten = True
    logger.warning(
        "the state of the agent is not saved, and the next turn of session %r continues without this one: %s. Let "
        "the agent drop or summarise old messages, or begin a new session.",
        session_id,
        error,
    )
    message = Message("assistant", "error", code="state_too_large", message=FORGOTTEN)
    await items.send(message)
