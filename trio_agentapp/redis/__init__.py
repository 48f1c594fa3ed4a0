"""The Trio link to a Redis server: one connection for commands and one for listening, for any number of callers.

link       RedisLink: both connections of a process
commands   RedisClient: calls and pipelines                 listener    RedisListener: subscriptions
fifo       matches replies with calls                       deadlines   timeouts of calls
dialer     connects again after a failure                   backoff     delays between attempts
connector  opens a stream and logs in                       connection  sends bytes, receives replies
sentinel   the current address of a master                  url         Redis URLs (redis-py's parser)
packing    commands as bytes                                replies     replies in redis-py's shapes
script     Lua scripts by digest                            serving     a service behind an `async with`
translation  errors of link and server as BackendUnavailable
"""

from .backoff import Backoff
from .commands import RedisClient
from .connection import ServerInfo
from .errors import LinkClosed, LinkDown, LinkError, LinkOverloaded, LinkTimeout, ServerChanged
from .link import RedisLink
from .listener import RedisListener
from .packing import Command
from .script import Script, ScriptCall
from .translation import is_full, unavailable_on_error
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
    "LinkError",
    "LinkDown",
    "LinkClosed",
    "ServerChanged",
    "LinkTimeout",
    "LinkOverloaded",
    "is_full",
    "unavailable_on_error",
]
