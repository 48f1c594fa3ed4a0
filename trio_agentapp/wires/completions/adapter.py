"""The routes of OpenAI's Chat Completions API, and of its list of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quart import Response
from quart.wrappers import Request

from ...errors import NotFound, RunNotFound
from ...protocol.ids import SessionKey
from ...protocol.lifecycle import RunState
from ...protocol.message import Message
from ...runs.runner import Watched
from ...web.identity import Caller
from ...web.parameters import read_object
from ...web.protocol_adapter import WireRoute
from ...web.responses import json_response, run_headers
from ..openai.adapter import OpenAIAdapter
from ..openai.errors import question_not_open
from ..openai.fields import model_id
from ..openai.turns import Asked, TurnId, answer_to, created_at, open_question, read_turn
from .asked import CreateCompletion, read_create
from .completion import Frame, RunFailed, completion_of
from .question_call import answer_data, answered_call
from .stream import CompletionStream

__all__ = ["CompletionsAdapter"]


class CompletionsAdapter(OpenAIAdapter):
    """OpenAI's Chat Completions API and list of models under `/v1` and `/compatible-mode/v1`."""

    name = "OpenAI Chat Completions"

    def routes(self) -> Sequence[WireRoute]:
        return self.served(
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
            question, message = answered
            watched, begun = await self.answer(request, caller, question, message)
            return await self._respond(request, watched, question.turn.next, asked, begun)
        watched = await self.start(request, caller, asked.request)
        return await self._respond(request, watched, TurnId(watched.run_id), asked)

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

    async def _respond(
        self, request: Request, watched: Watched, turn: TurnId, asked: CreateCompletion, begun: int | None = None
    ) -> Response:
        """Stream a turn, or wait for its end. `begun`: of a later turn."""
        frame = Frame(turn=turn, model=asked.model, include_usage=asked.include_usage)
        if asked.stream:
            return self.stream(request, watched, CompletionStream(frame, watched.run, begun=begun))
        begun = created_at(await self.app.access.describe(watched))
        messages, end = await read_turn(watched.subscriber, watched.run)
        try:
            response = json_response(completion_of(frame, begun, messages, end))
        except RunFailed as failure:
            response = json_response(failure.body, failure.status)
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
