"""The routes of sessions: what was said in one (WIRE, section 3)."""

from __future__ import annotations

import attrs
import orjson
from quart import Response
from quart.wrappers import Request

from ..abc import SessionStore
from ..errors import ValidationError
from ..protocol.ids import identifier_fault
from ..protocol.transcript import encode_message
from ..stores import MAX_MESSAGES
from .identity import Gate
from .reading import identifier, number
from .responses import json_response

__all__ = ["SessionRoutes"]


@attrs.frozen
class SessionRoutes:
    """The views, over the parts they need."""

    store: SessionStore
    gate: Gate

    async def history(self, request: Request, session_id: str) -> Response:
        """`GET /sessions/{session_id}/history`: its messages, oldest first; with `?limit=` the last so many."""
        principal = await self.gate.identify(request)
        if fault := identifier_fault(session_id):
            raise ValidationError([("path.session_id", fault)])
        user_id = self.gate.user_of(principal, identifier(request, "user_id")) or session_id
        limit = number(request, "limit", MAX_MESSAGES, least=1, most=MAX_MESSAGES)
        await self.gate.may_see(principal, "read", user_id, session_id, None)
        messages = await self.store.history(user_id, session_id, limit=limit)
        spelled = [orjson.Fragment(encode_message(message)) for message in messages]
        return json_response({"session_id": session_id, "user_id": user_id, "messages": spelled})
