"""The routes of sessions: what was said in one (WIRE, section 3)."""

from __future__ import annotations

import attrs
import orjson
from quart import Response
from quart.wrappers import Request

from ..abc import SessionStore
from ..errors import NotFound, RunNotFound, ValidationError
from ..protocol.ids import identifier_fault
from ..protocol.transcript import encode_message
from .health import json_response
from .identity import Gate

__all__ = ["SessionRoutes"]


@attrs.frozen
class SessionRoutes:
    """The views, over the parts they need."""

    store: SessionStore
    gate: Gate

    async def history(self, request: Request, session_id: str) -> Response:
        """`GET /sessions/{session_id}/history`: its messages, oldest first; with `?limit=` the last so many."""
        principal = await self.gate.identify(request)
        named = request.args.get("user_id")
        limit = _limit(request.args.get("limit"), {"path.session_id": session_id, "query.user_id": named})
        user_id = self.gate.user_of(principal, named) or session_id
        try:
            await self.gate.may_see(principal, "read", user_id, session_id, None)
        except RunNotFound:
            raise NotFound("There is no such session.") from None
        messages = await self.store.history(user_id, session_id, limit=limit)
        spelled = [orjson.Fragment(encode_message(message)) for message in messages]
        return json_response({"session_id": session_id, "user_id": user_id, "messages": spelled})


def _limit(text: str | None, ids: dict[str, str | None]) -> int | None:
    """The limit; every fault of the request is told at once."""
    faults = [
        (place, fault)
        for place, value in ids.items()
        if value is not None and (fault := identifier_fault(value)) is not None
    ]
    digits = text is not None and text.isascii() and text.isdecimal() and len(text) < 10
    if text is not None and not digits:
        faults.append(("query.limit", "must be a whole number from 0 on"))
    if faults:
        raise ValidationError(faults)
    return None if text is None else int(text)
