"""The routes of sessions: `GET /sessions/{id}` and `GET /sessions/{id}/history`."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

import attrs
import orjson
from quart import Response
from quart.wrappers import Request
from werkzeug.routing import BaseConverter

from ..abc import BaseInterruptBackend, SessionStore
from ..errors import ValidationError
from ..protocol.ids import SessionKey, identifier_fault
from ..protocol.lifecycle import RunState
from ..protocol.message_json import encode_message
from ..stores import MAX_MESSAGES
from .identity import Caller, Gate
from .parameters import identifier, number
from .responses import json_response

__all__ = ["AnyPath", "SessionRoutes"]

HISTORY = "/history"


class AnyPath(BaseConverter):
    """The converter of `<anything:name>` in a route: the rest of the path, with all of its slashes."""

    regex = ".+?"
    part_isolating = False
    weight = 300


@attrs.frozen(kw_only=True)
class SessionRoutes:
    """The views of sessions. `store` returns the session store that the app has at the time of the request."""

    store: Callable[[], SessionStore]
    backend: BaseInterruptBackend
    gate: Gate

    async def dispatch(self, request: Request, session_id: str) -> Response:
        """Find out which of the two routes the client has requested, and answer it.

        Servers decode a path before they pass it on. Then `/sessions/x%2Fhistory`, the session `x/history`, looks
        like the history of the session `x`. So the raw path is read, if the server provides it.
        """
        raw = request.scope.get("raw_path") or b""
        _, found, rest = raw.decode("latin-1").removeprefix(request.root_path).partition("/sessions/")
        if found:
            session_id, is_history = unquote(rest.removesuffix(HISTORY)), rest.endswith(HISTORY)
        else:
            is_history = request.path.endswith(HISTORY)
        principal = await self.gate.identify(request)
        if fault := identifier_fault(session_id):
            raise ValidationError([("path.session_id", fault)])
        caller = Caller(principal, identifier(request, "user_id"))
        limit = number(request, "limit", MAX_MESSAGES, least=1, most=MAX_MESSAGES) if is_history else 0
        key = SessionKey(caller.user_id or session_id, session_id)
        await self.gate.may_see(caller, "read", key.user_id, session_id, None)
        return await self._history(key, limit) if is_history else await self._status(key)

    async def _status(self, key: SessionKey) -> Response:
        """`GET /sessions/{id}`: the state of the session."""
        status = await self.backend.status(key)
        return json_response(
            {
                "session_id": key.session_id,
                "user_id": key.user_id,
                "state": status.state.value,
                "active_run_id": status.run_id if status.state is RunState.RUNNING else None,
                "last_run_id": status.run_id,
                "node": status.node_id,
                "last_activity": status.last_activity,
            }
        )

    async def _history(self, key: SessionKey, limit: int) -> Response:
        """`GET /sessions/{id}/history`: the messages, oldest first; with `?limit=` the last ones."""
        messages = await self.store().history(key.user_id, key.session_id, limit=limit)
        encoded = [orjson.Fragment(encode_message(message)) for message in messages]
        return json_response({"session_id": key.session_id, "user_id": key.user_id, "messages": encoded})
