"""Who asks, and whether they may: the one place that every entry passes (WIRE, section 6)."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import attrs
import trio
from quart import Request, Websocket

from ..errors import Forbidden, RunNotFound, Unauthorized
from ..protocol.ids import SessionKey
from ..runs.containment import contain, unwrap

__all__ = ["Action", "Gate", "Principal"]

logger = logging.getLogger("trio_agentapp.web")

Action = Literal["start", "stop", "read", "list"]


@attrs.frozen
class Principal:
    """Who sent a request. `claims` is for the hooks' own use."""

    user_id: str
    claims: Mapping[str, Any] = attrs.field(factory=dict)


Authenticate = Callable[[Request], Awaitable[Principal | None] | Principal | None]
Authorize = Callable[[Principal | None, str, str, str | None, str | None], bool | Awaitable[bool]]


class Gate:
    """The hooks of the app, and what holds without them: everything is allowed, and the user is the body's.

    With `authenticate` alone a principal acts for itself only. A hook that raises denies.
    """

    def __init__(self, authenticate: Authenticate | None, authorize: Authorize | None) -> None:
        self._authenticate = authenticate
        self._authorize = authorize

    @property
    def asks(self) -> bool:
        """Whether requests have to prove anything."""
        return self._authenticate is not None

    async def identify(self, request: Request | Websocket) -> Principal | None:
        """The principal of a request, None if the app does not ask.

        Raises:
            Unauthorized: the hook knows nobody, or failed.
        """
        if self._authenticate is None:
            return None
        try:
            principal = await _call(self._authenticate, request)
        except Exception:
            logger.exception("the authenticate hook failed; the request is refused")
            raise Unauthorized("Who you are could not be established.") from None
        if not isinstance(principal, Principal):
            raise Unauthorized("Credentials are missing or not valid.")
        return principal

    def user_of(self, principal: Principal | None, named: str | None) -> str | None:
        """The user a request is about: the one it names, else its sender."""
        return named or (None if principal is None else principal.user_id)

    async def may_start(self, principal: Principal | None, key: SessionKey, run_id: str | None) -> None:
        """Raises Forbidden: the principal may not start runs of this user."""
        if not await self._allowed(principal, "start", key.user_id, key.session_id, run_id):
            raise Forbidden("You may not act for this user.")

    async def may_submit(self, principal: Principal | None, user_id: str | None) -> None:
        """Raises Forbidden: the principal may not start tasks, which belong to no session."""
        if not await self._allowed(principal, "start", user_id, None, None):
            raise Forbidden("You may not start this task.")

    async def may_see(
        self,
        principal: Principal | None,
        action: Action,
        user_id: str | None,
        session_id: str | None,
        run_id: str | None,
    ) -> None:
        """Raises RunNotFound: not allowed, and told as if it did not exist."""
        if not await self._allowed(principal, action, user_id, session_id, run_id):
            raise RunNotFound

    async def _allowed(
        self,
        principal: Principal | None,
        action: Action,
        user_id: str | None,
        session_id: str | None,
        run_id: str | None,
    ) -> bool:
        if self._authorize is None:
            return principal is None or principal.user_id == user_id
        try:
            return await _call(self._authorize, principal, action, user_id, session_id, run_id) is True
        except Exception:
            logger.exception("the authorize hook failed; the request is refused")
            return False


async def _call(hook: Callable[..., Any], *args: object) -> Any:
    """Call a hook in a task of its own: one that leaves something open has failed."""
    return unwrap(await contain(_answer_of, hook, *args))


async def _answer_of(hook: Callable[..., Any], *args: object) -> Any:
    """What a hook says; a synchronous one says it in a thread, since it may wait for a database."""
    if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__):
        return await hook(*args)
    result = await trio.to_thread.run_sync(hook, *args)
    return await result if inspect.isawaitable(result) else result
