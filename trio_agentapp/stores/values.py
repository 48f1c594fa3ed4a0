"""Checks and encodes states and ids, in the same way for every store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ..errors import ItemError, StateTooLarge
from ..protocol.ids import SessionKey, identifier_fault
from ..protocol.payload import plain_json

__all__ = ["MAX_STATE_BYTES", "decode_state", "encode_state", "key_of"]

MAX_STATE_BYTES = 4 * 2**20
"""Bytes of one state as JSON. It is read and written as a whole in each turn. Keep larger data in files, and their
names in the state."""


def key_of(user_id: str, session_id: str) -> SessionKey:
    """Return the key of a session. Raises TypeError for an id that is not text, ValueError for an invalid one."""
    for name, value in (("user_id", user_id), ("session_id", session_id)):
        if not isinstance(value, str):
            raise TypeError(f"{name} is a str, not {type(value).__name__}")
        if (fault := identifier_fault(value)) is not None:
            raise ValueError(f"{name} {fault}")
    return SessionKey(user_id, session_id)


def encode_state(state: Mapping[str, Any]) -> bytes:
    """Return the JSON of a state. Raises TypeError or StateTooLarge."""
    if not isinstance(state, Mapping):
        raise TypeError(f"a state is a mapping, not {type(state).__name__}")
    try:
        encoded = orjson.dumps(plain_json(state))
    except ItemError as error:
        raise TypeError(f"the state cannot be kept: {error}") from None
    if len(encoded) > MAX_STATE_BYTES:
        raise StateTooLarge(f"the state takes {len(encoded):,} bytes as JSON; at most {MAX_STATE_BYTES:,} are kept")
    return encoded


def decode_state(encoded: bytes | None) -> dict[str, Any] | None:
    if encoded is None:
        return None
    state: dict[str, Any] = orjson.loads(encoded)
    return state
