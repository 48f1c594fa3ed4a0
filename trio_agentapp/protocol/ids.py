"""Identifiers of runs, sessions, users and messages: how they are made and checked.

Rules: docs/reference/wire.md.
"""

from __future__ import annotations

import hashlib
import re
import secrets

import attrs

from ..refusals import note_refusal

__all__ = [
    "SessionKey",
    "digest_of",
    "identifier_fault",
    "is_run_id",
    "new_call_id",
    "new_message_id",
    "new_run_id",
    "new_session_id",
]

MAX_IDENTIFIER = 256
"""Characters of a user or session id."""

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
# Control characters (C0, DEL, C1) can forge log lines and header fields. UTF-8 cannot encode a lone surrogate.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@attrs.frozen
class SessionKey:
    """A user and a session. At most one live run exists for each key."""

    user_id: str
    session_id: str

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that represent the key in names of Redis keys.

        The length of the user id is hashed, too, so ("a:b", "c") and ("a", "b:c") differ.
        Raises UnicodeEncodeError if an id holds a lone surrogate; `identifier_fault` finds those.
        """
        return digest_of(f"{len(self.user_id)}:{self.user_id}{self.session_id}")


def digest_of(text: str) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def new_run_id() -> str:
    """Return a new run id: 128 random bits, as 32 hexadecimal digits."""
    return secrets.token_hex(16)


def new_session_id() -> str:
    """Return a new session id, so that two requests without ids never share a session."""
    return secrets.token_hex(16)


def new_message_id() -> str:
    """Return a new message id: `msg_` and 32 hexadecimal digits."""
    return "msg_" + secrets.token_hex(16)


def new_call_id() -> str:
    """Return a new id of a tool call: `call_` and 32 hexadecimal digits."""
    return "call_" + secrets.token_hex(16)


def is_run_id(text: str) -> bool:
    """Whether a client may use this run id: 8 to 64 of `A-Za-z0-9_-`."""
    return _RUN_ID.fullmatch(text) is not None


def identifier_fault(text: str) -> str | None:
    """Return what is wrong with a user or session id, or None. The text never contains the id."""
    if not text:
        return "must not be empty"
    if len(text) > MAX_IDENTIFIER:
        note_refusal("ids")
        return f"must have at most {MAX_IDENTIFIER} characters, not {len(text)}"
    if _FORBIDDEN.search(text):
        return "must not contain control characters or lone surrogates"
    if text in (".", ".."):
        # Clients and proxies remove these segments from a path, so the session could not be requested.
        return 'must not be "." or ".."'
    return None
