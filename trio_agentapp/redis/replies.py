"""Replies of the server, in the shapes that redis-py gives them.

Replies pass through redis-py's response callbacks, a public attribute of its client, as with
`redis.Redis(legacy_responses=False)`, and error replies through its parser. Their shapes are the same for RESP2 and
RESP3, so callers need not know which one the server speaks. Texts stay bytes.

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
from redis.connection import DefaultParser

__all__ = ["MISSING", "new_reader", "shaped", "tells_to_reconnect"]

MISSING = object()
"""Returned by the reader if it needs more bytes. None and False are replies."""


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
    """Return a parser. It returns error replies as the exceptions that redis-py raises for them."""
    return hiredis.Reader(
        protocolError=exceptions.InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=MISSING
    )
