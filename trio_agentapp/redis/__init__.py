"""The Trio link to a Redis server: one connection for commands, one for listening, whatever the number of callers.

link       RedisLink: both connections of a process
commands   RedisClient                                      listener    RedisListener
fifo       which reply is whose                             deadlines   which call has waited long enough
dialer     connecting again and again                       backoff     with pauses that grow
connector  a stream that is open and logged in              connection  bytes out, replies in
sentinel   where the server is now (redis-py, in a thread)  url         where it is at all (redis-py's parser)
packing    commands as bytes                                replies     replies as redis-py shapes them
script     Lua by digest                                    serving     a service behind an `async with`
"""

from .backoff import Backoff
from .commands import ClientStatistics, RedisClient
from .connection import ServerInfo
from .errors import LinkClosed, LinkDown, LinkError, LinkOverloaded, LinkTimeout, ServerChanged
from .link import RedisLink
from .listener import ListenerStatistics, RedisListener
from .packing import Command
from .script import Script, ScriptCall
from .url import RedisURL

__all__ = [
    "RedisClient",
    "RedisListener",
    "RedisLink",
    "RedisURL",
    "Script",
    "ScriptCall",
    "Command",
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
