"""Errors of the link. Refusals of the server are other errors.

    LinkError                 no answer reached the caller; `maybe_executed` says whether the call may be executed
    ├── LinkDown              there was no connection, or it broke before the answer
    │   ├── LinkClosed        the client is not served yet, or is closed
    │   └── ServerChanged     connected to another server than `only_on`: nothing was sent
    ├── LinkTimeout           sent, and not answered in time
    └── LinkOverloaded        too many calls wait: nothing was sent

An error that the server itself answers is raised as one of redis-py's classes (`redis.exceptions`).
"""

from __future__ import annotations

from ..errors import AgentAppError

__all__ = ["LinkClosed", "LinkDown", "LinkError", "LinkOverloaded", "LinkTimeout", "ServerChanged"]


class LinkError(AgentAppError):
    """The server's answer did not reach the caller.

    `maybe_executed`: False means that the command was never sent. True means that the server may have executed it,
    or may still do so.
    """

    def __init__(self, message: str, *, maybe_executed: bool = False) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed


class LinkDown(LinkError):
    """There was no connection within the call's timeout, or it broke before the answer."""


class LinkClosed(LinkDown):
    """The client is closed, or is not served yet."""


class ServerChanged(LinkDown):
    """The connection leads to another server than `only_on`; nothing was sent."""


class LinkTimeout(LinkError):
    """The command was sent and not answered within its timeout. The connection is replaced."""


class LinkOverloaded(LinkError):
    """More calls wait for an answer than the client allows; nothing was sent."""
