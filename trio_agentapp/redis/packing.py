"""Commands as the bytes that go to the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hiredis
from redis.exceptions import DataError

__all__ = ["Argument", "Command", "name_of", "pack"]

Argument = str | bytes | int | float

Command = Sequence[Argument]
"""The name first, as in redis-py: `("SET", key, value)`, `("CONFIG GET", "maxmemory")`."""

CHANGES_THE_CONNECTION = frozenset({
    "ASKING", "AUTH", "DISCARD", "EXEC", "HELLO", "MONITOR", "MULTI", "PSUBSCRIBE", "PSYNC", "PUNSUBSCRIBE", "QUIT",
    "READONLY", "READWRITE", "RESET", "SELECT", "SSUBSCRIBE", "SUBSCRIBE", "SUNSUBSCRIBE", "SYNC", "UNSUBSCRIBE",
    "UNWATCH", "WATCH",
})  # fmt: skip
"""Commands that would change the connection for all other callers."""

BLOCKS_THE_CONNECTION = frozenset(
    ("BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH", "BZMPOP", "BZPOPMAX", "BZPOPMIN")
)
"""Commands that would block the connection for all other callers."""


def name_of(command: Command) -> str:
    """Return the command's name in capitals, with its subcommand if both are one word: "CONFIG GET".

    Raises:
        ValueError: the command cannot be used on a connection that all callers share.
    """
    if not command:
        raise ValueError("an empty command")
    name = _upper(command[0])
    first, _, second = name.partition(" ")
    if first in CHANGES_THE_CONNECTION or (first == "CLIENT" and _is_reply(second, command)):
        raise ValueError(f"{name} would change the connection that all callers share")
    if first in BLOCKS_THE_CONNECTION or (first in ("XREAD", "XREADGROUP") and _has_block(command)):
        raise ValueError(f"{name} would block the connection that all callers share")
    return name


def _upper(word: Argument) -> str:
    if isinstance(word, bytes):
        word = word.decode("latin-1")
    return word.upper() if isinstance(word, str) else ""


def _is_reply(second: str, command: Command) -> bool:
    return "REPLY" in (second, _upper(command[1]) if len(command) > 1 else "")


def _has_block(command: Command) -> bool:
    return any(_upper(word) == "BLOCK" for word in command[1:])


def pack(command: Command) -> bytes:
    """Return the bytes of a command.

    Raises redis-py's DataError for an argument that is not text, bytes or a number.
    """
    words: tuple[Any, ...] = tuple(command)
    if isinstance(words[0], str) and " " in words[0]:
        words = (*words[0].split(), *words[1:])
    try:
        packed: bytes = hiredis.pack_command(words)
    except TypeError:
        kinds = {type(word).__name__ for word in words if isinstance(word, bool) or not isinstance(word, Argument)}
        raise DataError(f"Arguments of a command are bytes, str, int or float, not {kinds}.") from None
    return packed
