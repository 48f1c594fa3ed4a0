"""The Trio link to a Redis server: one connection for commands, one for listening, whatever the number of callers.

url        where the server is and how to log in            (redis-py's parser)
sentinel   where it is now, if Sentinels look after it      (redis-py, in a thread)
connector  a stream that is open and logged in              connection   bytes out, replies in
packing    commands as bytes                                replies      replies as redis-py shapes them
fifo       which reply is whose
commands   RedisClient                                      listener     RedisListener
"""

from .backoff import Backoff
from .commands import ClientStatistics, RedisClient
from .connection import ServerInfo
from .errors import LinkClosed, LinkDown, LinkError, LinkOverloaded, LinkTimeout, ServerChanged
from .listener import ListenerStatistics, RedisListener
from .script import Script, ScriptCall
from .url import RedisURL

__all__ = [
    "RedisClient",
    "RedisListener",
    "RedisURL",
    "Script",
    "ScriptCall",
    "Backoff",
    "ServerInfo",
    "ClientStatistics",
    "ListenerStatistics",
    "LinkError",
    "LinkDown",
    "LinkClosed",
    "ServerChanged",
    "LinkTimeout",
    "LinkOverloaded",
]
