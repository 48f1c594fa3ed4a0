"""Replies of the server, in the shapes that redis-py gives them.

Replies pass through redis-py's response callbacks, a public attribute of its client, as with
`redis.Redis(legacy_responses=False)`, and error replies through its parser. Texts stay bytes.

The shape depends on the name of the command alone. So two things differ from redis-py's methods: options that
change a reply (`WITHSCORES`), and subcommands passed as an argument: write `("CONFIG GET", name)`. This package
uses neither.
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
    """Return whether the server cannot serve now (READONLY, LOADING), so that a new connection may help."""
    return isinstance(error, exceptions.ConnectionError | exceptions.ReadOnlyError | exceptions.MasterDownError)


@cache
def shapes() -> dict[str, Callable[..., Any]]:
    """Return redis-py's response callbacks for RESP2, by command name in capitals."""
    client = redis.Redis(protocol=2, legacy_responses=False)  # never connects
    return {name.upper(): callback for name, callback in client.response_callbacks.items()}


def shaped(name: str, reply: Any) -> Any:
    """Return the reply to the command `name` (in capitals) in redis-py's shape; errors unchanged."""
    shape = shapes().get(name)
    return reply if shape is None or isinstance(reply, exceptions.RedisError) else shape(reply)


def new_reader() -> hiredis.Reader:
    """Return a parser. It returns error replies as the exceptions that redis-py raises for them."""
    return hiredis.Reader(
        protocolError=exceptions.InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=MISSING
    )
