"""The routes of OpenAI's Chat Completions API, and of its list of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from quart import Response
from quart.wrappers import Request

from ...errors import NotFound, RunEnded, RunNotFound
from ...protocol.ids import SessionKey
from ...protocol.lifecycle import RunState
from ...protocol.message import Message
from ...runs.runner import Watched
from ...web.identity import Caller
from ...web.parameters import idempotency_key
from ...web.protocol_adapter import ProtocolAdapter, WireRoute
from ...web.responses import json_response, run_headers
from ...web.sse import hold_watch
from ..openai.errors import question_not_open
from ..openai.fields import model_id, read_object
from ..openai.routes import served
from ..openai.turns import Asked, TurnId, answer_to, created_at, open_question, read_turn
from .asked import CreateCompletion, answer_data, answered_call, read_create
from .stream import CompletionStream, Frame, RunFailed, completion_of

__all__ = ["CompletionsAdapter"]


class CompletionsAdapter(ProtocolAdapter):
    """OpenAI's Chat Completions API and list of models under `/v1` and `/compatible-mode/v1`."""

    name = "OpenAI Chat Completions"

    def routes(self) -> Sequence[WireRoute]:
        return served(
            ("POST", "/chat/completions", self.create),
            ("GET", "/models", self.models),
            ("GET", "/models/<path:model>", self.model),
        )

    async def create(self, request: Request) -> Response:
        """`POST /chat/completions`: start a run, or answer the question of one; stream it, or wait for its end."""
        principal = await self.app.access.gate.identify(request)
        body = await read_object(request)
        asked = read_create(request, body, model_id(self.app.name))
        caller = Caller(principal, asked.user_id)
        answered = await self._answered(caller, asked)
        if answered is not None:
            return await self._answer(request, caller, asked, *answered)
        raw = await request.get_data(True, False, False)
        key = idempotency_key(request)
        watched = await self.app.access.start(caller, asked.request, idempotency_key=key, body=raw)
        hold_watch(request, watched.subscriber)
        frame = self._frame(TurnId(watched.run_id), asked)
        if asked.stream:
            return self.stream(request, watched, CompletionStream(frame, watched.run))
        return await self._whole(request, watched, frame)

    async def models(self, request: Request) -> Response:
        """`GET /models`: the app, as the one model that there is."""
        await self.caller(request)
        return json_response({"object": "list", "data": [self._model()]})

    async def model(self, request: Request, model: str) -> Response:
        """`GET /models/{id}`."""
        await self.caller(request)
        if model != model_id(self.app.name):
            raise NotFound(f"There is no model {model!r:.100}; {model_id(self.app.name)!r} is the only one.")
        return json_response(self._model())

    def _model(self) -> dict[str, Any]:
        # The time at which a model was made means nothing here.
        return {"id": model_id(self.app.name), "object": "model", "created": 0, "owned_by": self.app.name}

    def _frame(self, turn: TurnId, asked: CreateCompletion) -> Frame:
        return Frame(turn=turn, model=asked.model, include_usage=asked.include_usage)

    async def _whole(self, request: Request, watched: Watched, frame: Frame) -> Response:
        begun = created_at(await self.app.access.describe(watched))
        messages, end = await read_turn(watched.subscriber, watched.run)
        try:
            response = json_response(completion_of(frame, begun, messages, end))
        except RunFailed as failure:
            response = Response(orjson.dumps(failure.body), status=failure.status, content_type="application/json")
            # The agent has run. Clients repeat 409 and 500 by themselves, and it would run again.
            response.headers["x-should-retry"] = "false"
        response.headers.update(run_headers(request, watched.run_id, watched.session_id))
        return response

    # Answers to questions.

    async def _answered(self, caller: Caller, asked: CreateCompletion) -> tuple[Asked, Message] | None:
        """Return the question that a request answers, and the answer; None: it answers none and starts a run.

        The output of the tool call that shows the question is an answer; and so is a message of the user in a
        session whose run asks.
        """
        access, messages = self.app.access, asked.request.input
        if (called := answered_call(messages)) is not None:
            id, run_id, message = called
            question = await open_question(access, caller, run_id, id=id)
            if question is None:
                raise question_not_open("$.messages", id)
            return question, answer_to(question, None, **answer_data(message))
        if asked.session_id is None or messages[-1].role != "user":
            return None
        key = SessionKey(caller.user_id or asked.session_id, asked.session_id)
        status = await access.backend.status(key)
        if status.state is not RunState.RUNNING or status.run_id is None:
            return None
        try:
            question = await open_question(access, caller, status.run_id)
        except RunNotFound:
            # Another user's: the start is refused, as it is for a session without a run.
            return None
        return None if question is None else (question, answer_to(question, messages[-1].content))

    async def _answer(
        self, request: Request, caller: Caller, asked: CreateCompletion, question: Asked, message: Message
    ) -> Response:
        """Answer a question; the rest of its run is the completion."""
        access, turn = self.app.access, question.turn.next
        watched = await access.attach(caller, turn.run_id, question.event.sequence_number)
        if watched is None:
            raise RunEnded
        hold_watch(request, watched.subscriber)
        begun = created_at(await access.describe(watched))
        await access.send_input(caller, turn.run_id, message)
        frame = self._frame(turn, asked)
        if asked.stream:
            return self.stream(request, watched, CompletionStream(frame, watched.run, begun=begun))
        return await self._whole(request, watched, frame)
