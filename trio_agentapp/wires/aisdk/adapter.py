"""`POST /ai-sdk/chat` and `GET /ai-sdk/chat/{id}/stream`: runs an agent for `useChat`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from quart import Response
from quart.wrappers import Request
from werkzeug.exceptions import HTTPException

from ...errors import ConfigurationError, RequestError, RunNotFound, StreamExpired
from ...protocol.codec import structure_request
from ...protocol.message import latest_turn
from ...protocol.request import AgentRequest, CancelAfter, OnDisconnect
from ...protocol.structure import Faults, is_identifier
from ...runs.runner import Watched
from ...server.problems import described, headers_of
from ...web.parameters import identifier, read_object
from ...web.protocol_adapter import ProtocolAdapter, WireRoute
from ..questions import Answered, hooks_of, resume
from .chunks import UIChunks
from .messages import answers_in, messages_in

__all__ = ["AISDKAdapter"]

HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}

_OPTIONS = ("user_id", "on_disconnect", "multitask_strategy", "timeout_s", "state", "model", "temperature")
"""Fields of our own requests that a body may have beside those of `useChat`."""

_OWN = ("id", "messages", "trigger", "messageId", *_OPTIONS)


@attrs.frozen
class _Chat:
    """What a `useChat` asks for."""

    request: AgentRequest
    answers: list[Answered]
    message_id: str | None
    """Of the last message, if it is the agent's: the client shows the answer as its continuation."""


class AISDKAdapter(ProtocolAdapter):
    """Speaks the UI message stream of the AI SDK (version v1, `ai` 7). A chat is a session.

    Args:
        route_path: the path of the route to chat. `GET {route_path}/{id}/stream` resumes.
        on_disconnect: what happens to a run whose client hangs up; the app's setting if None. A page that is to
            resume its stream after a reload needs "continue" or `CancelAfter(seconds)`, and stops by `POST /stop`.
    """

    name = "AI SDK"

    def __init__(self, *, route_path: str = "/ai-sdk/chat", on_disconnect: OnDisconnect | None = None) -> None:
        if not route_path.startswith("/") or route_path.endswith("/"):
            raise ConfigurationError(f"route_path must be a path such as '/ai-sdk/chat', not {route_path!r:.80}")
        if on_disconnect not in (None, "cancel", "continue") and not isinstance(on_disconnect, CancelAfter):
            raise ConfigurationError(
                f"on_disconnect must be 'cancel', 'continue' or CancelAfter(seconds), not {on_disconnect!r:.80}"
            )
        self.route_path = route_path
        self._on_disconnect = on_disconnect

    def routes(self) -> Sequence[WireRoute]:
        return [
            ("POST", self.route_path, self.chat),
            ("GET", f"{self.route_path}/<chat_id>/stream", self.stream_again),
        ]

    async def chat(self, request: Request) -> Response:
        """Start a run, or give a waiting one its answers, and stream what follows."""
        try:
            return await self._chat(request)
        except (RequestError, HTTPException) as error:
            return _refused(error)

    async def stream_again(self, request: Request, chat_id: str) -> Response:
        """Stream the live run of a chat from its beginning; 204 if there is none."""
        try:
            caller = await self.caller(request, user_id=identifier(request, "user_id"))
            known = None if is_identifier(chat_id) else await self.app.access.current(caller, chat_id)
            if known is None:
                return Response(b"", status=204)
            if request.method == "HEAD":
                # Without a reader: one that leaves could stop the run as unwatched.
                return Response(b"", content_type="text/event-stream; charset=utf-8", headers=HEADERS)
            try:
                watched = await self.app.access.attach(caller, known.as_record.run_id)
            except (RunNotFound, StreamExpired):
                watched = None
            if watched is None:
                return Response(b"", status=204)
            return self._stream(request, watched)
        except (RequestError, HTTPException) as error:
            return _refused(error)

    async def _chat(self, request: Request) -> Response:
        access = self.app.access
        await access.gate.identify(request)
        asked = self._read(await read_object(request))
        caller = await self.caller(request, user_id=asked.request.user_id)
        if asked.answers:
            return self._stream(request, await resume(request, access, caller, asked.answers), asked)
        watched = await access.start(caller, asked.request)
        if watched.run is not None:
            # The request repeats the whole conversation, and the history of the session has the rest.
            watched.run.asked = latest_turn(asked.request.input)
        return self._stream(request, watched, asked)

    def _read(self, value: Mapping[str, Any]) -> _Chat:
        """Check a request. Raises ValidationError with all its faults."""
        faults = Faults()
        faults.check("$.id", value.get("id"), is_identifier)
        said = value.get("messages", [])
        messages = messages_in(said, faults)
        if said == []:
            faults.add("$.messages", "must have at least one message")
        faults.settle()
        options: dict[str, Any] = {name: value[name] for name in _OPTIONS if value.get(name) is not None}
        options.setdefault("on_disconnect", self._on_disconnect)
        more = {name: item for name, item in value.items() if name not in _OWN}
        fields = {"session_id": value["id"], "stream": True, **options, "body": more}
        request = structure_request(fields, require_input=False)
        request.input = messages
        last = said[-1]
        return _Chat(request, answers_in(said), last.get("id") or None if last["role"] == "assistant" else None)

    def _stream(self, request: Request, watched: Watched, asked: _Chat | None = None) -> Response:
        run = watched.run
        chunks = UIChunks(
            run_id=watched.run_id,
            session_id=watched.session_id,
            message_id=None if asked is None else asked.message_id,
            answered=[] if asked is None else [each.question for each in asked.answers],
            live_state=(lambda: None) if run is None else (lambda: dict(run.state)),
            **hooks_of(run),
        )
        return self.stream(request, watched, chunks, HEADERS)


def _refused(error: RequestError | HTTPException) -> Response:
    # `useChat` shows the body as the text of the error.
    status, _, _, text = described(error)
    response = Response(text, status=status, content_type="text/plain; charset=utf-8")
    response.headers.update(headers_of(error))
    return response
