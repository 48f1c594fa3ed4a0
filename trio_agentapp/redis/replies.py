"""What the server sends back, in the shapes redis-py gives it.

Replies pass through redis-py's own response callbacks (a public attribute of its client), in the shapes that
the methods of `redis.Redis(legacy_responses=False)` give: those are the same for RESP2 and RESP3, so that a server
that only knows RESP2 changes nothing for a caller. Not the same are maps and doubles made by Lua, and subcommands
that are not part of the name: `("CONFIG", "GET", name)`, where redis-py has `("CONFIG GET", name)`. Texts stay
bytes, as with `decode_responses=False`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import hiredis
import redis
from redis import exceptions

from .packing import Argument, Command

__all__ = ["MISSING", "error_of", "new_reader", "shaped", "tells_to_reconnect"]

MISSING = object()
"""What the reader gives when it needs more bytes; None and False are replies."""

ERRORS: dict[str, type[exceptions.RedisError]] = {
    "OOM": exceptions.OutOfMemoryError,
    "WRONGPASS": exceptions.AuthenticationError,
    "EXECABORT": exceptions.ExecAbortError,
    "LOADING": exceptions.BusyLoadingError,
    "NOSCRIPT": exceptions.NoScriptError,
    "READONLY": exceptions.ReadOnlyError,
    "NOAUTH": exceptions.AuthenticationError,
    "NOPERM": exceptions.NoPermissionError,
    "ASK": exceptions.AskError,
    "TRYAGAIN": exceptions.TryAgainError,
    "MOVED": exceptions.MovedError,
    "CLUSTERDOWN": exceptions.ClusterDownError,
    "CROSSSLOT": exceptions.ClusterCrossSlotError,
    "MASTERDOWN": exceptions.MasterDownError,
}

GENERIC_ERRORS: dict[str, type[exceptions.RedisError]] = {
    "max number of clients reached": exceptions.ConnectionError,
    "invalid password": exceptions.AuthenticationError,
    "Client sent AUTH, but no password is set": exceptions.AuthenticationError,
    "AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?": exceptions.AuthenticationError,
    "wrong number of arguments for 'auth' command": exceptions.AuthenticationWrongNumberOfArgsError,
}
"""Those that begin with a plain ERR."""

SCORED = ("ZDIFF", "ZINTER", "ZRANDMEMBER", "ZRANGE", "ZRANGEBYSCORE", "ZREVRANGE", "ZREVRANGEBYSCORE", "ZUNION")

LOCATED = {
    "WITHDIST": "withdist",
    "WITHCOORD": "withcoord",
    "WITHHASH": "withhash",
    "STORE": "store",
    "STOREDIST": "store_dist",
}

SHAPING_WORDS: dict[str, dict[str, str]] = {
    "SET": {"GET": "get"},
    "HSCAN": {"NOVALUES": "no_values"},
    "HRANDFIELD": {"WITHVALUES": "withvalues"},
    "ZRANK": {"WITHSCORE": "withscore"},
    "ZREVRANK": {"WITHSCORE": "withscore"},
    **{name: {"WITHSCORES": "withscores"} for name in SCORED},
    "XAUTOCLAIM": {"JUSTID": "parse_justid"},
    "XCLAIM": {"JUSTID": "parse_justid"},
    "XINFO STREAM": {"FULL": "full"},
    **dict.fromkeys(("GEORADIUS", "GEORADIUSBYMEMBER", "GEOSEARCH"), LOCATED),
}
"""Words of a command that change its reply, and the options by which redis-py's methods tell its callbacks."""


def error_of(text: str) -> exceptions.RedisError:
    """The exception that redis-py would raise for the error reply `text`; its code stays in `status_code`."""
    code, _, message = text.partition(" ")
    if code == "ERR":
        return GENERIC_ERRORS.get(message, exceptions.ResponseError)(message, status_code=code)
    if (kind := ERRORS.get(code)) is not None:
        return kind(message, status_code=code)
    return exceptions.ResponseError(text)


def tells_to_reconnect(error: exceptions.RedisError) -> bool:
    """Whether `error` says that this server, for now, is not the one to talk to: READONLY, LOADING and the like."""
    return isinstance(error, exceptions.ConnectionError | exceptions.ReadOnlyError | exceptions.MasterDownError)


@cache
def shapes(protocol: int) -> dict[str, Callable[..., Any]]:
    """redis-py's response callbacks for RESP2 or RESP3 by command name in capitals."""
    client = redis.Redis(protocol=protocol, legacy_responses=False)  # never connected: only its callbacks are read
    return {name.upper(): callback for name, callback in client.response_callbacks.items()}


def shaped(name: str, command: Command, reply: Any, protocol: int) -> Any:
    """`reply` to `command`, called `name` in capitals, as redis-py would give it; errors as they are."""
    shape = shapes(protocol).get(name)
    if shape is None or isinstance(reply, exceptions.RedisError):
        return reply
    if (options := SHAPING_WORDS.get(name)) is None:
        return shape(reply)
    # Not the first argument, nor the value that SET sets: they may be any word.
    words = {_text(word) for word in command[3 if name == "SET" else 2 :]}
    return shape(reply, **{option: word in words for word, option in options.items()})


def _text(word: Argument) -> str:
    return (word.decode(errors="replace") if isinstance(word, bytes) else str(word)).upper()


def new_reader() -> hiredis.Reader:
    return hiredis.Reader(protocolError=exceptions.InvalidResponse, replyError=error_of, notEnoughData=MISSING)
