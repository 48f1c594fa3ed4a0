"""Authenticates clients and checks what they may do, for every route and protocol."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal

import attrs
import trio
from quart import Request, Websocket

from ..errors import BackendUnavailable, Forbidden, RequestError, RunNotFound, Unauthorized
from ..limits import Rates
from ..protocol.ids import SessionKey, identifier_fault
from ..protocol.text import type_name
from ..runs.containment import contain, unwrap
from .principals import address_name, user_name

__all__ = ["Action", "Caller", "Gate", "Principal"]

logger = logging.getLogger("trio_agentapp.web")

Action = Literal["start", "stop", "read", "list", "metrics"]

HOOK_TIMEOUT = 10.0
"""Seconds that a hook may take. A client that waits longer has usually given up."""


def _frozen(values: Iterable[str]) -> frozenset[str]:
    if isinstance(values, str):
        raise TypeError(f"scopes must be a collection of texts, not the text {values!r}")
    return frozenset(values)


def _check_user(_principal: object, _field: object, value: Any) -> None:
    fault = identifier_fault(value) if isinstance(value, str) else f"must be a text, not {type_name(value)}"
    if fault is not None:
        raise ValueError(f"the user_id of a Principal {fault}")


@attrs.frozen
class Principal:
    """The authenticated sender of a request. `scopes` and `claims` are for the `authorize` hook.

    Raises ValueError: `user_id` is no user id (1 to 256 characters, no control characters). TypeError: `scopes` is
    one text. If a hook raises one of them, the request is refused, as for any exception.
    """

    user_id: str = attrs.field(validator=_check_user)
    claims: Mapping[str, Any] = attrs.field(factory=dict)
    scopes: frozenset[str] = attrs.field(factory=frozenset, converter=_frozen)


@attrs.frozen
class Caller:
    """The client that requests an operation, and the user that it is for.

    `principal` is None in an app that does not authenticate requests. `named_user` is the user that the request
    names, if it does.
    """

    principal: Principal | None
    named_user: str | None = None

    @property
    def user_id(self) -> str | None:
        """The user that the request is about: the one it names, else its sender."""
        return self.named_user or (None if self.principal is None else self.principal.user_id)


Authenticate = Callable[[Request], Awaitable[Principal | None] | Principal | None]
Authorize = Callable[[Principal | None, str, str, str | None, str | None], bool | Awaitable[bool]]


class Gate:
    """Asks the `authenticate` and `authorize` hooks of the app.

    Without hooks everything is allowed, and the user is the one that the request names. With `authenticate` alone a
    principal may act for itself only. A hook that raises refuses the request, and so does one that takes more than
    `timeout` seconds, whatever it returns in the end. A hook that is a plain function runs in a thread, which
    cannot be cancelled, so the refusal is sent when the hook has returned.
    """

    def __init__(
        self,
        authenticate: Authenticate | None,
        authorize: Authorize | None,
        *,
        timeout: float = HOOK_TIMEOUT,
        requests: Rates | None = None,
    ) -> None:
        """`requests`: limits the requests of each user, or of each address if there is no user."""
        self._authenticate = authenticate
        self._authorize = authorize
        self._timeout = timeout
        self._requests = requests or Rates("requests", 0)

    @property
    def asks(self) -> bool:
        """Whether requests must be authenticated."""
        return self._authenticate is not None

    async def identify(self, request: Request | Websocket, *, counted: bool = True) -> Principal | None:
        """Count a request, and return its principal; None if the app does not authenticate requests.

        It counts for the principal, or for the client's address if there is none. Failed authentications count for
        the address, too, but separately, so that they do not use up the limit of routes without authentication.

        Raises:
            TooManyRequests: the principal or the address sends too many.
            Unauthorized: the hook returned no principal, or failed.
            BackendUnavailable: the hook did not return in time.
            And each RequestError that the hook raises.
        """
        if self._authenticate is None:
            await self._requests.admit(address_name(request.scope) if counted else None)
            return None
        try:
            principal = await self._authenticated(self._authenticate, request)
        except Unauthorized:
            # Count failures after the hook, not before it. Before, failures of one client behind a proxy would
            # block all clients of that proxy.
            await self.count_failure(request)
            raise
        await self._requests.admit(user_name(principal.user_id) if counted else None)
        return principal

    async def count_failure(self, request: Request | Websocket) -> None:
        """Count a request with wrong credentials. Raises TooManyRequests if its address has sent too many."""
        address = address_name(request.scope)
        await self._requests.admit(None if address is None else f"failures of {address}")

    async def _authenticated(self, hook: Authenticate, request: Request | Websocket) -> Principal:
        try:
            principal = await self._call(hook, request)
        except RequestError:
            raise
        except trio.TooSlowError:
            logger.error("the authenticate hook took more than %g s; the request is refused", self._timeout)  # noqa: TRY400
            raise BackendUnavailable("The credentials could not be checked in time.", retry_after=1.0) from None
        except Exception:
            logger.exception("the authenticate hook failed; the request is refused")
            raise Unauthorized("The request could not be authenticated.") from None
        if not isinstance(principal, Principal):
            if principal is not None:
                kind = type(principal).__name__
                logger.error("the authenticate hook must return a Principal or None, not %s; refused", kind)
            raise Unauthorized
        return principal

    async def may_start(self, caller: Caller, key: SessionKey, run_id: str | None) -> None:
        """Check that the caller may start runs of this user. Raises Forbidden."""
        if not await self._allows(caller, "start", key.user_id, key.session_id, run_id):
            raise Forbidden("You may not act for this user.")

    async def may_submit(self, caller: Caller) -> None:
        """Check that the caller may start tasks, which belong to no session. Raises Forbidden."""
        if not await self._allows(caller, "start", caller.user_id, None, None):
            raise Forbidden("You may not start this task.")

    async def may_measure(self, caller: Caller) -> None:
        """Check that the caller may read the metrics, which cover all users. Raises Forbidden."""
        if not await self._allows(caller, "metrics", None, None, None):
            raise Forbidden("You may not read the metrics.")

    async def may_see(self, caller: Caller, action: Action, *target: str | None) -> None:
        """Check an action on a target: a user id, a session id and a run id, each of which may be None.

        Raises RunNotFound: not allowed. A forbidden run looks like one that does not exist.
        """
        if not await self._allows(caller, action, *target):
            raise RunNotFound

    async def _allows(self, caller: Caller, action: Action, *target: str | None) -> bool:
        principal = caller.principal
        if self._authorize is None:
            return principal is None or principal.user_id == target[0]
        try:
            return await self._call(self._authorize, principal, action, *target) is True
        except trio.TooSlowError:
            logger.error("the authorize hook took more than %g s; the request is refused", self._timeout)  # noqa: TRY400
            return False
        except Exception:
            logger.exception("the authorize hook failed; the request is refused")
            return False

    async def _call(self, hook: Callable[..., Any], *args: object) -> Any:
        """Call a hook in a task of its own. A hook that leaves a nursery or scope open counts as failed.

        Raises TooSlowError: it took too long. A value that it returns after the time-out is ignored.
        """
        with trio.move_on_after(self._timeout) as limit:
            result = unwrap(await contain(_result_of, hook, *args))
        if limit.cancel_called or trio.current_time() >= limit.deadline:
            raise trio.TooSlowError
        return result


async def _result_of(hook: Callable[..., Any], *args: object) -> Any:
    """Call a hook; a synchronous one in a thread, because it may wait for a database."""
    if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__):
        return await hook(*args)
    result = await trio.to_thread.run_sync(hook, *args)
    return await result if inspect.isawaitable(result) else result
