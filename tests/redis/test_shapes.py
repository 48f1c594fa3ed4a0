"""Replies equal those of redis-py, and those of RESP2 equal those of RESP3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
import trio
from redis._parsers.base import BaseParser
from redis.exceptions import RedisError

from trio_agentapp.redis import RedisClient
from trio_agentapp.redis.replies import error_of, tells_to_reconnect
from trio_agentapp.testing.redis_server import RedisServer

COMMANDS: list[tuple[Any, ...]] = [
    ("PING",),
    ("ECHO", "é"),
    ("SET", "a", "1"),
    ("SET", "a", b"\xff\x00", "NX"),
    ("GET", "a"),
    ("GET", "none"),
    ("STRLEN", "a"),
    ("TYPE", "a"),
    ("INCR", "a"),
    ("INCRBYFLOAT", "a", 0.5),
    ("SETEX", "e", 100, "v"),
    ("EXPIRE", "e", 100),
    ("PTTL", "none"),
    ("PERSIST", "none"),
    ("EXISTS", "a", "e"),
    ("MSET", "m1", "1", "m2", "2"),
    ("MGET", "m1", "none", "m2"),
    ("SETNX", "m1", "x"),
    ("DEL", "m1", "m2"),
    ("HSET", "h", "f", "1", "g", "2"),
    ("HGETALL", "h"),
    ("HGETALL", "none"),
    ("HMGET", "h", "f", "none"),
    ("HGET", "h", "f"),
    ("HKEYS", "h"),
    ("HVALS", "h"),
    ("HEXISTS", "h", "f"),
    ("HINCRBYFLOAT", "h", "f", "1.5"),
    ("HDEL", "h", "f"),
    ("HSCAN", "h", 0),
    ("RPUSH", "l", "a", "b", "c"),
    ("LRANGE", "l", 0, -1),
    ("LPOP", "l"),
    ("LPOP", "l", 2),
    ("LPOP", "none"),
    ("LLEN", "l"),
    ("SADD", "s", "x"),
    ("SMEMBERS", "s"),
    ("SMEMBERS", "none"),
    ("SISMEMBER", "s", "x"),
    ("SINTER", "s", "s"),
    ("SSCAN", "s", 0),
    ("ZADD", "z", 1, "one", 2.5, "two"),
    ("ZSCORE", "z", "two"),
    ("ZSCORE", "z", "none"),
    ("ZINCRBY", "z", 1, "one"),
    ("ZRANK", "z", "two"),
    ("ZRANGE", "z", 0, -1),
    ("ZRANGEBYSCORE", "z", "-inf", "+inf"),
    ("ZCARD", "z"),
    ("ZSCAN", "z", 0),
    ("ZPOPMIN", "z"),
    ("ZREMRANGEBYSCORE", "z", 0, 10),
    ("XADD", "x", "1-0", "k", "v"),
    ("XADD", "x", "2-0", "k", "w", "k2", "w2"),
    ("XRANGE", "x", "-", "+"),
    ("XRANGE", "none", "-", "+"),
    ("XREVRANGE", "x", "+", "-", "COUNT", 1),
    ("XREAD", "COUNT", 10, "STREAMS", "x", "0"),
    ("XREAD", "STREAMS", "x", "9"),
    ("XLEN", "x"),
    ("XTRIM", "x", "MAXLEN", 1),
    ("XINFO STREAM", "x"),
    ("XGROUP CREATE", "x", "g", "0"),
    ("XREADGROUP", "GROUP", "g", "me", "STREAMS", "x", ">"),
    ("XPENDING", "x", "g"),
    ("XACK", "x", "g", "2-0"),
    ("SCAN", 0, "MATCH", "a"),
    ("KEYS", "a"),
    ("EVAL", "return {1, 'two', false, {KEYS[1], ARGV[1]}, true}", 1, "key", b"\xfe"),
    ("EVAL", "return redis.call('HGETALL', KEYS[1])", 1, "h"),
    ("EVAL", "redis.setresp(3) return {map={a=1}}", 0),
    ("EVAL", "return {double=1.5}", 0),
    ("EVAL", "return redis.status_reply('FINE')", 0),
    ("EVAL", "return redis.error_reply('MINE is wrong')", 0),
    ("EVAL", "this is not Lua", 0),
    ("EVALSHA", "0" * 40, 0),
    ("SCRIPT LOAD", "return 1"),
    ("SCRIPT EXISTS", "0" * 40),
    ("SCRIPT FLUSH",),
    ("PUBLISH", "c", "m"),
    ("PUBSUB CHANNELS",),
    ("PUBSUB NUMSUB", "c"),
    ("CONFIG GET", "maxmemory-policy"),
    ("CONFIG SET", "maxmemory-policy", "noeviction"),
    ("CONFIG", "GET", "maxmemory-policy"),
    ("CLIENT ID",),
    ("OBJECT", "ENCODING", "a"),
    ("DBSIZE",),
    ("GEOADD", "geo", "13.361389", "38.115556", "p"),
    ("GEOPOS", "geo", "p"),
    ("WAIT", 0, 10),
    ("ACL WHOAMI",),
    ("GET",),
    ("NOSUCHCOMMAND", "x"),
    ("LPUSH", "a", "wrong type"),
    ("FLUSHDB",),
]

DIFFERS_EACH_TIME = {"CLIENT ID"}


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


async def ask_ours(server: RedisServer, protocol: int) -> tuple[list[object], list[object]]:
    answers: list[object] = []
    async with RedisClient.open(server.url_for(protocol=protocol)) as client:
        for command in COMMANDS:
            try:
                answers.append(await client.call(*command))
            except RedisError as error:
                answers.append(error)
        return answers, await client.pipeline(COMMANDS)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_replies_equal_those_of_redis_py(server: RedisServer, protocol: int) -> None:
    theirs = await trio.to_thread.run_sync(ask_redis_py, server, protocol)
    called, piped = await ask_ours(server, protocol)

    for command, their, call, pipe in zip(COMMANDS, theirs, called, piped, strict=True):
        if command[0] in DIFFERS_EACH_TIME:
            assert type(call) is type(their)
        else:
            assert comparable(call) == comparable(their), command
            assert comparable(pipe) == comparable(their), command


async def test_both_protocols_give_the_same(server: RedisServer) -> None:
    (second, _), (third, _) = await ask_ours(server, 2), await ask_ours(server, 3)

    different = [
        command[0]
        for command, two, three in zip(COMMANDS, second, third, strict=True)
        if comparable(two) != comparable(three) and command[0] not in DIFFERS_EACH_TIME
    ]
    # What has no shape that redis-py could know from a name: options that change a reply, maps and doubles made by
    # Lua, subcommands given as an argument. Scripts that stay with RESP2 types are the same.
    assert different == ["EVAL", "EVAL", "CONFIG"]


METHODS: list[tuple[tuple[Any, ...], Callable[[redis.Redis], object]]] = [
    (("SET", "a", "GET"), lambda r: r.set("a", "GET")),
    (("SET", "a", "2", "GET"), lambda r: r.set("a", "2", get=True)),
    (("SET", "a", "3", b"keepttl", "get"), lambda r: r.set("a", "3", keepttl=True, get=True)),
    (("SET", "b", "3", "PX", 1000), lambda r: r.set("b", "3", px=1000)),
    (("ZADD", "z", 1, "one", 2.5, "two"), lambda r: r.zadd("z", {"one": 1, "two": 2.5})),
    (("ZRANGE", "z", 0, -1, "WITHSCORES"), lambda r: r.zrange("z", 0, -1, withscores=True)),
    (("ZRANGEBYSCORE", "z", 0, 9, "WITHSCORES"), lambda r: r.zrangebyscore("z", 0, 9, withscores=True)),
    (("ZREVRANGE", "z", 0, -1, "WITHSCORES"), lambda r: r.zrevrange("z", 0, -1, withscores=True)),
    (("ZUNION", 2, "z", "z", "WITHSCORES"), lambda r: r.zunion(["z", "z"], withscores=True)),
    (("ZDIFF", 2, "z", "y", "WITHSCORES"), lambda r: r.zdiff(["z", "y"], withscores=True)),
    (("ZRANDMEMBER", "z", 5, "WITHSCORES"), lambda r: sorted(r.zrandmember("z", 5, withscores=True))),
    (("ZPOPMAX", "z", 2), lambda r: r.zpopmax("z", 2)),
    (("HSET", "h", "f", "1"), lambda r: r.hset("h", "f", "1")),
    (("HRANDFIELD", "h", 2, "WITHVALUES"), lambda r: r.hrandfield("h", 2, withvalues=True)),
    (("GEOADD", "g", 13.5, 38.5, "p"), lambda r: r.geoadd("g", (13.5, 38.5, "p"))),
    (
        ("GEOSEARCH", "g", "FROMLONLAT", 13.5, 38.5, "BYRADIUS", 9, "km", "WITHCOORD", "WITHDIST"),
        lambda r: r.geosearch(
            "g", longitude=13.5, latitude=38.5, radius=9, unit="km", withcoord=True, withdist=True
        ),
    ),
    (("XADD", "x", "1-1", "k", "v"), lambda r: r.xadd("x", {"k": "v"}, id="1-1")),
    (("XGROUP CREATE", "x", "g", "0"), lambda r: r.xgroup_create("x", "g", "0")),
    (("XREADGROUP", "GROUP", "g", "me", "STREAMS", "x", ">"), lambda r: r.xreadgroup("g", "me", {"x": ">"})),
    (("XCLAIM", "x", "g", "you", 0, "1-1", "JUSTID"), lambda r: r.xclaim("x", "g", "you", 0, ["1-1"], justid=True)),
    (
        ("XAUTOCLAIM", "x", "g", "you", 0, "0", "JUSTID"),
        lambda r: r.xautoclaim("x", "g", "you", 0, "0", justid=True),
    ),
    (("CONFIG GET", "maxmemory"), lambda r: r.config_get("maxmemory")),
]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_replies_equal_those_of_redis_py_s_methods(server: RedisServer, protocol: int) -> None:
    def ask() -> list[object]:
        with redis.Redis.from_url(server.url, protocol=protocol, legacy_responses=False) as client:
            return [method(client) for _, method in METHODS]

    theirs = await trio.to_thread.run_sync(ask)
    async with RedisClient.open(server.url_for(protocol=protocol)) as client:
        await client.call("FLUSHALL")
        for (command, _), their in zip(METHODS, theirs, strict=True):
            our = await client.call(*command)
            assert comparable(sorted(our) if command[0] == "ZRANDMEMBER" else our) == comparable(their), command


ERRORS = [
    "ERR wrong", "WRONGTYPE Operation", "OOM command not allowed", "WRONGPASS invalid", "NOAUTH Authentication",
    "NOPERM this user", "LOADING Redis is loading", "READONLY You can't write", "NOSCRIPT No matching",
    "EXECABORT Transaction", "ASK 1 host:1", "MOVED 1 host:1", "TRYAGAIN Multiple", "CLUSTERDOWN down",
    "CROSSSLOT Keys", "MASTERDOWN Link", "ERR max number of clients reached", "ERR invalid password", "BUSY script",
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?", "ERR Client sent AUTH, but no password is set", "ODD",
]  # fmt: skip


@pytest.mark.parametrize("text", ERRORS)
def test_errors_equal_those_of_redis_py(text: str) -> None:
    theirs = BaseParser.parse_error(text)

    assert comparable(error_of(text))[0] is type(theirs)  # type: ignore[index]
    assert str(error_of(text)) == str(theirs)


def test_which_errors_tell_to_reconnect() -> None:
    telling = {text.split()[0] for text in ERRORS if tells_to_reconnect(error_of(text))}

    assert telling == {"WRONGPASS", "NOAUTH", "LOADING", "READONLY", "MASTERDOWN", "ERR"}
