"""Turns: the messages of one run in a session's history, and the bounds of a history."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import attrs

from ..errors import ItemError
from ..protocol.builder import MAX_ANSWER_BYTES
from ..protocol.ids import identifier_fault
from ..protocol.items import plain_message
from ..protocol.message import Message
from ..protocol.message_json import decode_messages, encode_message

__all__ = ["MAX_HISTORY_BYTES", "MAX_MESSAGES", "Turn", "make_turn", "messages_of", "surplus"]

logger = logging.getLogger("trio_agentapp.stores")

MAX_MESSAGES = 1000
"""Messages of one session's history: more than a model can use for its next turn."""

MAX_HISTORY_BYTES = 4 * 2**20
"""Bytes of one session's history as JSON: room for several of the largest requests (1 MiB), and small enough for
one response. The last turn is always kept, so that the answer of the last run can be read.
"""

MAX_TURN_BYTES = 8 * MAX_ANSWER_BYTES
"""Bytes of one turn as JSON: its request and the largest answer, of which a byte may take six in JSON."""


@attrs.frozen
class Turn:
    """The messages that one run appended: `messages` is a JSON list with `count` items."""

    run_id: str
    token: int
    count: int
    messages: bytes = attrs.field(repr=False)


def make_turn(messages: Sequence[Message], run_id: str, token: int) -> Turn | None:
    """Return a turn; None if there are no messages. The oldest messages beyond the bounds of a turn are dropped.

    Raises:
        TypeError: an item is not a message, or contains a value that is not JSON.
        ValueError: the run id is invalid.
    """
    if (fault := identifier_fault(run_id)) is not None:
        raise ValueError(f"run_id {fault}")
    encoded = [_encoded(message) for message in messages]
    size, first = 1, len(encoded)
    while first > 0 and len(encoded) - first < MAX_MESSAGES and size + len(encoded[first - 1]) < MAX_TURN_BYTES:
        first -= 1
        size += len(encoded[first]) + 1
    if first > 0:
        logger.warning(
            "run %r: %d of its %d messages are beyond the size of a history", run_id, first, len(encoded)
        )
    kept = encoded[first:]
    return Turn(run_id, token, len(kept), b"[" + b",".join(kept) + b"]") if kept else None


def _encoded(message: Message) -> bytes:
    if not isinstance(message, Message):
        raise TypeError(f"a history is made of Message objects, not {type(message).__name__}")
    try:
        return encode_message(plain_message(message))
    except ItemError as error:
        raise TypeError(f"the message cannot be kept: {error}") from None


def surplus(sizes: Sequence[tuple[int, int]]) -> int:
    """Return how many of the oldest turns are beyond the bounds of a history. The last turn always stays.

    `sizes` has for each turn `(turn.count, len(turn.messages))`: its messages, and their bytes.
    """
    count, size = sum(each[0] for each in sizes), sum(each[1] for each in sizes)
    dropped = 0
    while (count > MAX_MESSAGES or size > MAX_HISTORY_BYTES) and dropped < len(sizes) - 1:
        count -= sizes[dropped][0]
        size -= sizes[dropped][1]
        dropped += 1
    return dropped


def messages_of(turns: Iterable[bytes], limit: int | None) -> list[Message]:
    messages = [message for turn in turns for message in decode_messages(turn)]
    return messages if limit is None else messages[max(len(messages) - limit, 0) :]
