"""Errors of the link, as opposed to refusals of the server.

    LinkError                 no answer of the server reached the caller; `maybe_executed` tells what is known
    ├── LinkDown              there was no connection, or it broke before the answer
    │   ├── LinkClosed        the client is not served: not yet, or not any more
    │   └── ServerChanged     connected, but not to the server that `only_on` named: nothing was sent
    ├── LinkTimeout           sent, and not answered in time
    └── LinkOverloaded        too many calls wait already: nothing was sent

What the server itself answered is raised as redis-py's exception classes (`redis.exceptions`): then it is known
that the command was refused, or failed as the message says.
"""

from __future__ import annotations

from ..errors import AgentAppError

__all__ = ["LinkClosed", "LinkDown", "LinkError", "LinkOverloaded", "LinkTimeout", "ServerChanged"]


class LinkError(AgentAppError):
    """The server's answer did not reach the caller.

    `maybe_executed`: False means that the command was never written, so the server did not and will not execute
    it; True means that it may have been executed, or still will be.
    """

    def __init__(self, message: str, *, maybe_executed: bool = False) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed


class LinkDown(LinkError):
    """No connection within the call's time-out, or it broke before the answer."""


class LinkClosed(LinkDown):
    """The client is closed, or is not served yet."""


class ServerChanged(LinkDown):
    """The connection now leads to another server than the one the call was meant for; nothing was sent."""


class LinkTimeout(LinkError):
    """The command was sent and not answered within its time-out; the connection is replaced."""


class LinkOverloaded(LinkError):
    """More calls wait for an answer than the client's bound allows; nothing was sent."""
