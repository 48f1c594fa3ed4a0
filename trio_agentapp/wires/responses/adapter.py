"""The routes of OpenAI's Responses API."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from quart import Response
from quart.wrappers import Request

from ...errors import MethodNotAllowed, NotFound, RunNotFound
from ...protocol.events import MessageEvent, ResponseEvent
from ...protocol.ids import new_session_id
from ...protocol.lifecycle import Phase
from ...protocol.message import Message
from ...protocol.structure import Faults
from ...runs.runner import Watched
from ...web.identity import Caller
from ...web.parameters import flag, identifier, number, read_object
from ...web.protocol_adapter import WireRoute
from ...web.responses import json_response, run_headers
from ...web.run_access import Known
from ..openai.adapter import OpenAIAdapter
from ..openai.errors import question_not_open, response_not_found
from ..openai.fields import check_absent, check_metadata, model_id
from ..openai.turns import Asked, TurnId, answer_to, created_at, open_question, read_turn, turn_so_far
from .asked import PREFIX, CreateResponse, not_an_answer, read_create
from .envelope import Envelope, Remembered, Status, ending_of
from .input_items import Answer
from .items import Output
from .stream import ResponseStream

__all__ = ["ResponsesAdapter"]

NOT_DELETED = "Responses are forgotten ten minutes after their run has ended, and cannot be deleted before."
NO_INPUT_ITEMS = "The input of a response is not kept as items; GET /sessions/{id}/history has the conversation."


class ResponsesAdapter(OpenAIAdapter):
    """OpenAI's Responses API: `/v1/responses`, and the same under `/compatible-mode/v1`."""

    name = "OpenAI Responses"

    def __init__(self) -> None:
        self._remembered = Remembered()

    def routes(self) -> Sequence[WireRoute]:
        return self.served(
            ("POST", "/responses", self.create),
            ("GET", "/responses/<response_id>", self.retrieve),
            ("POST", "/responses/<response_id>/cancel", self.cancel),
            ("DELETE", "/responses/<response_id>", self.delete),
            ("GET", "/responses/<response_id>/input_items", self.input_items),
            ("POST", "/conversations", self.new_conversation),
        )

    async def create(self, request: Request) -> Response:
        """`POST /responses`: start a run, or answer the question of one; stream it, wait, or return at once."""
        principal = await self.app.access.gate.identify(request)
        body = await read_object(request)
        asked = read_create(request, body, model_id(self.app.name))
        caller = Caller(principal, asked.user_id)
        question = None
        if asked.previous is not None:
            caller = await self._continue(caller, asked, asked.previous)
        if asked.answer is not None or (asked.said is not None and asked.previous is not None):
            question = await self._question(caller, asked)
        if question is not None:
            said = asked.answer or asked.said
            assert said is not None  # noqa: S101  it was looked at
            watched, begun = await self.answer(request, caller, question, _answer_to(question, said))
            return await self._respond(request, watched, question.turn.next, asked, begun)
        watched = await self.start(request, caller, asked.request)
        return await self._respond(request, watched, TurnId(watched.run_id), asked)

    async def retrieve(self, request: Request, response_id: str) -> Response:
        """`GET /responses/{id}`: the response as it is now; `?stream=true` its events, also those to come."""
        caller = await self._caller_of(request)
        turn = self._turn(response_id)
        if not flag(request, "stream"):
            return json_response(await self._snapshot(caller, turn))
        after = number(request, "starting_after", -1, least=-1, most=2**53)
        access, begun, before = self.app.access, None, -1
        if turn.number > 1:
            before = (await turn_so_far(access, caller, turn)).after
            begun = created_at(await access.look(caller, turn.run_id))
        watched = await access.attach(caller, turn.run_id, before)
        assert watched is not None  # noqa: S101  `before` is not the last event of the run
        envelope = self._envelope(turn, watched.session_id)
        # No run: a reader beside the one of the request decides nothing about the run.
        return self.stream(request, watched, ResponseStream(envelope, None, after=after, begun=begun))

    async def cancel(self, request: Request, response_id: str) -> Response:
        """`POST /responses/{id}/cancel`: stop the run; the answer is the response when it has ended."""
        caller = await self._caller_of(request)
        turn = self._turn(response_id)
        await self.app.access.cancel(caller, turn.run_id, wait=True)
        return json_response(await self._snapshot(caller, turn))

    async def delete(self, request: Request, response_id: str) -> Response:
        await self._known(request, response_id)
        raise MethodNotAllowed(NOT_DELETED)

    async def input_items(self, request: Request, response_id: str) -> Response:
        await self._known(request, response_id)
        raise MethodNotAllowed(NO_INPUT_ITEMS)

    async def new_conversation(self, request: Request) -> Response:
        """`POST /conversations`: an id for a new session. The first response that names it makes the session."""
        await self.app.access.gate.identify(request)
        body = await read_object(request)
        faults = Faults()
        metadata = check_metadata(body, faults)
        check_absent(body, {"items": "send them as `input` of the first response"}, faults)
        faults.settle()
        made = {"id": new_session_id(), "object": "conversation", "metadata": metadata}
        return json_response({**made, "created_at": int(time.time())})

    # Answers to questions.

    async def _continue(self, caller: Caller, asked: CreateResponse, previous: TurnId) -> Caller:
        """Put a request into the session of the response that it continues. Return who asks for it."""
        try:
            known = await self.app.access.look(caller, previous.run_id)
        except RunNotFound:
            raise response_not_found(previous.under(PREFIX)) from None
        asked.request.session_id, asked.request.user_id = known.key.session_id, known.key.user_id
        return Caller(caller.principal, known.key.user_id)

    async def _question(self, caller: Caller, asked: CreateResponse) -> Asked | None:
        """Return the question that a request answers; None: it answers none and starts a run."""
        access, answer = self.app.access, asked.answer
        if answer is None:
            assert asked.previous is not None  # noqa: S101  the caller has looked
            return await open_question(access, caller, asked.previous.run_id, turn=asked.previous)
        if asked.previous is None:
            raise not_an_answer()
        question = await open_question(access, caller, asked.previous.run_id, id=answer.question)
        if question is None:
            raise question_not_open(answer.path, answer.question or "")
        return question

    # Responses as a whole.

    async def _respond(
        self, request: Request, watched: Watched, turn: TurnId, asked: CreateResponse, begun: int | None = None
    ) -> Response:
        """Stream a turn, wait for its end, or leave it in the background. `begun`: of a later turn."""
        envelope = self._envelope(turn, watched.session_id, asked)
        if asked.stream:
            return self.stream(request, watched, ResponseStream(envelope, watched.run, begun=begun))
        known = await self.app.access.describe(watched)
        if asked.background:
            body = envelope.body(_status_of(known), created_at(known))
        else:
            messages, end = await read_turn(watched.subscriber, watched.run)
            body = _body_of(envelope, created_at(known), messages, end)
        response = json_response(body)
        response.headers.update(run_headers(request, watched.run_id, watched.session_id))
        return response

    async def _snapshot(self, caller: Caller, turn: TurnId) -> dict[str, object]:
        """The response of a turn as it is now. Raises RunNotFound: there is none, or it is not for this caller."""
        known = await self.app.access.look(caller, turn.run_id)
        found = await turn_so_far(self.app.access, caller, turn)
        end = found.end
        envelope = self._envelope(turn, known.key.session_id)
        begun = created_at(known) if end is None else end.created_at
        if end is None and not found.asks:
            output = Output()
            for message in found.messages:
                output.add(message)
            output.close()
            return envelope.body(_status_of(known), begun, output.listed())
        return _body_of(envelope, begun, found.messages, None if found.asks else end)

    def _envelope(self, turn: TurnId, session_id: str, asked: CreateResponse | None = None) -> Envelope:
        id = turn.under(PREFIX)
        if asked is None:
            fields = self._remembered.get(id)
        else:
            fields = {
                "model": asked.request.model or model_id(self.app.name),
                "background": asked.background,
                "echo": asked.echo,
            }
            self._remembered.put(id, fields)
        return Envelope(id=id, session_id=session_id, **{"model": model_id(self.app.name), **fields})

    def _turn(self, response_id: str) -> TurnId:
        turn = TurnId.read(response_id, PREFIX)
        if turn is None:
            raise NotFound("There is no such response.")
        return turn

    async def _caller_of(self, request: Request) -> Caller:
        return Caller(await self.app.access.gate.identify(request), identifier(request, "user_id"))

    async def _known(self, request: Request, response_id: str) -> Known:
        return await self.app.access.look(await self._caller_of(request), self._turn(response_id).run_id)


def _answer_to(question: Asked, said: Answer) -> Message:
    """Return the answer of a user's message, or of an `mcp_approval_response`.

    Its reason is the answer to a question for a text.
    """
    if said.content is not None:
        return answer_to(question, said.content)
    data: dict[str, Any] = {"approve": said.approve}
    if said.reason:
        data["answer" if said.approve and question.data.get("name") != "approval" else "reason"] = said.reason
    return answer_to(question, None, **data)


def _status_of(known: Known) -> Status:
    """The status of a response whose run has not ended."""
    run = known.run
    return "queued" if run is not None and run.lifecycle.phase in (Phase.QUEUED, Phase.CLAIMING) else "in_progress"


def _body_of(
    envelope: Envelope, begun: int, messages: Sequence[MessageEvent], end: ResponseEvent | None
) -> dict[str, object]:
    """A response that has ended, at the end of its run or at a question."""
    output = Output()
    for message in messages:
        output.add(message)
    output.close()
    status, fields = ("completed", {}) if end is None else ending_of(end)
    return envelope.body(status, begun, output.listed(), **fields)
