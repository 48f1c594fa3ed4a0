"""Replies equal those of redis-py, whichever protocol it uses."""

from __future__ import annotations

from typing import Any

import pytest
import redis
import trio
from redis._parsers.base import BaseParser
from redis.exceptions import RedisError

from trio_agentapp.redis import RedisClient
from trio_agentapp.redis.replies import new_reader, tells_to_reconnect
from trio_agentapp.testing.redis_server import RedisServer

COMMANDS: list[tuple[Any, ...]] = [
    ("PING",),
    ("SET", "a", "1"),
    ("SET", "a", b"\xff\x00", "PX", 100_000, "NX"),
    ("GET", "a"),
    ("GET", "none"),
    ("DEL", "a"),
    ("PEXPIRE", "none", 100),
    ("HSET", "h", "f", "1", "g", "2"),
    ("HGET", "h", "f"),
    ("HGETALL", "h"),
    ("HGETALL", "none"),
    ("HMGET", "h", "f", "none"),
    ("HDEL", "h", "f"),
    ("PEXPIRE", "h", 100_000),
    ("RPUSH", "l", "a", "b", "c"),
    ("LRANGE", "l", 0, -1),
    ("LRANGE", "none", 0, -1),
    ("ZADD", "z", "NX", 1, "one"),
    ("ZADD", "z", 2, "two", 3, "three"),
    ("ZREVRANK", "z", "two"),
    ("ZREVRANK", "z", "none"),
    ("ZREVRANGE", "z", 0, 1),
    ("ZREMRANGEBYRANK", "z", 0, -3),
    ("ZREM", "z", "two", "none"),
    ("EVAL", "return {1, 'two', false, {KEYS[1], ARGV[1]}, true}", 1, "key", b"\xfe"),
    ("EVAL", "return redis.call('HGETALL', KEYS[1])", 1, "h"),
    ("EVAL", "redis.setresp(3) return {map={a=1}}", 0),
    ("EVAL", "return {double=1.5}", 0),
    ("EVAL", "return redis.status_reply('FINE')", 0),
    ("EVAL", "return redis.error_reply('MINE is wrong')", 0),
    ("EVAL", "this is not Lua", 0),
    ("EVALSHA", "0" * 40, 0),
    ("PUBLISH", "c", "m"),
    ("CONFIG GET", "maxmemory-policy"),
    ("CONFIG", "GET", "maxmemory-policy"),
    ("GET",),
    ("NOSUCHCOMMAND", "x"),
    ("LPUSH", "h", "wrong type"),
    ("FLUSHDB",),
]
"""The commands that the package sends outside of scripts, some others, and refusals."""


def comparable(answer: object) -> object:
    """Types count too: True is not 1 here, nor a list a tuple."""
    if isinstance(answer, RedisError):
        return type(answer), str(answer), answer.status_code
    if isinstance(answer, dict):
        return "dict", [(comparable(key), comparable(value)) for key, value in answer.items()]
    if isinstance(answer, set):
        return "set", sorted(answer)
    if isinstance(answer, list | tuple):
        return type(answer), [comparable(item) for item in answer]
    return type(answer), answer


def ask_redis_py(server: RedisServer, protocol: int) -> list[object]:
    answers: list[object] = []
    with redis.Redis.from_url(
        server.url, protocol=protocol, legacy_responses=False, decode_responses=False
    ) as client:
        client.flushall()
        client.script_flush()
        for command in COMMANDS:
            try:
                answers.append(client.execute_command(*command))
            except RedisError as error:
                answers.append(error)
    return answers


async def ask_ours(server: RedisServer) -> tuple[list[object], list[object]]:
    answers: list[object] = []
    async with RedisClient.open(server.url) as client:
        for command in COMMANDS:
            try:
                answers.append(await client.call(*command))
            except RedisError as error:
                answers.append(error)
        return answers, await client.pipeline(COMMANDS)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_replies_equal_those_of_redis_py(server: RedisServer, protocol: int) -> None:
    theirs = await trio.to_thread.run_sync(ask_redis_py, server, protocol)
    called, piped = await ask_ours(server)

    different = []
    for command, their, call, pipe in zip(COMMANDS, theirs, called, piped, strict=True):
        assert comparable(call) == comparable(pipe), command
        if comparable(call) != comparable(their):
            different.append(command[0])
    # redis-py cannot know these shapes from the name: maps and doubles made by Lua, subcommands as an argument.
    # Scripts that stay with RESP2 types are the same.
    assert different == ([] if protocol == 2 else ["EVAL", "EVAL", "CONFIG"])


async def test_facts_about_the_server_are_dicts(server: RedisServer) -> None:
    async with RedisClient.open(server.url) as client:
        for section, name in (("server", "run_id"), ("memory", "maxmemory_policy"), ("cluster", "cluster_enabled")):
            assert name in await client.call("INFO", section)
        with pytest.raises(RedisError, match="cluster support disabled"):
            await client.call("CLUSTER INFO")


ERRORS = [
    "ERR wrong", "WRONGTYPE Operation", "OOM command not allowed", "WRONGPASS invalid", "NOAUTH Authentication",
    "NOPERM this user", "LOADING Redis is loading", "READONLY You can't write", "NOSCRIPT No matching",
    "MOVED 1 host:1", "CLUSTERDOWN down",
    "CROSSSLOT Keys", "MASTERDOWN Link", "ERR max number of clients reached", "ERR invalid password", "BUSY script",
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?", "ERR Client sent AUTH, but no password is set", "ODD",
]  # fmt: skip


def error_of(text: str) -> RedisError:
    reader = new_reader()
    reader.feed(f"-{text}\r\n".encode())
    error = reader.gets()
    assert isinstance(error, RedisError)
    return error


@pytest.mark.parametrize("text", ERRORS)
def test_errors_equal_those_of_redis_py(text: str) -> None:
    theirs = BaseParser.parse_error(text)

    assert comparable(error_of(text))[0] is type(theirs)  # type: ignore[index]
    assert str(error_of(text)) == str(theirs)


def test_which_errors_tell_to_reconnect() -> None:
    telling = {text.split()[0] for text in ERRORS if tells_to_reconnect(error_of(text))}

    assert telling == {"WRONGPASS", "NOAUTH", "LOADING", "READONLY", "MASTERDOWN", "ERR"}
