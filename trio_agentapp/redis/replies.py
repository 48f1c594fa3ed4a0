"""Replies of the server, in the shapes that redis-py gives them.

Replies pass through redis-py's response callbacks, a public attribute of its client, as with
`redis.Redis(legacy_responses=False)`. Their shapes are the same for RESP2 and RESP3, so callers need not know which
one the server speaks. Texts stay bytes.

The shape depends on the name of the command alone. Three things therefore differ from redis-py's methods, or
between the protocols: options that change a reply (`WITHSCORES`), maps and doubles made by Lua, and subcommands
passed as an argument: write `("CONFIG GET", name)`. This package uses none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import hiredis
import redis
from redis import exceptions

__all__ = ["MISSING", "error_of", "new_reader", "shaped", "tells_to_reconnect"]

MISSING = object()
"""Returned by the reader if it needs more bytes. None and False are replies."""

ERRORS: dict[str, type[exceptions.RedisError]] = {
    "OOM": exceptions.OutOfMemoryError,
    "WRONGPASS": exceptions.AuthenticationError,
    "LOADING": exceptions.BusyLoadingError,
    "NOSCRIPT": exceptions.NoScriptError,
    "READONLY": exceptions.ReadOnlyError,
    "NOAUTH": exceptions.AuthenticationError,
    "NOPERM": exceptions.NoPermissionError,
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
"""Errors whose code is a plain ERR."""


def error_of(text: str) -> exceptions.RedisError:
    """Return the exception that redis-py raises for the error reply `text`. `status_code` is the reply's code."""
    code, _, message = text.partition(" ")
    if code == "ERR":
        return GENERIC_ERRORS.get(message, exceptions.ResponseError)(message, status_code=code)
    if (kind := ERRORS.get(code)) is not None:
        return kind(message, status_code=code)
    return exceptions.ResponseError(text)


def tells_to_reconnect(error: exceptions.RedisError) -> bool:
    """Whether the server says that it cannot serve now, so that another connection may help: READONLY, LOADING."""
    return isinstance(error, exceptions.ConnectionError | exceptions.ReadOnlyError | exceptions.MasterDownError)


@cache
def shapes(protocol: int) -> dict[str, Callable[..., Any]]:
    """Return redis-py's response callbacks for RESP2 or RESP3, by command name in capitals."""
    client = redis.Redis(protocol=protocol, legacy_responses=False)  # never connects
    return {name.upper(): callback for name, callback in client.response_callbacks.items()}


def shaped(name: str, reply: Any, protocol: int) -> Any:
    """Return the reply to the command `name` (in capitals) in redis-py's shape; errors unchanged."""
    shape = shapes(protocol).get(name)
    return reply if shape is None or isinstance(reply, exceptions.RedisError) else shape(reply)


def new_reader() -> hiredis.Reader:
    return hiredis.Reader(protocolError=exceptions.InvalidResponse, replyError=error_of, notEnoughData=MISSING)
