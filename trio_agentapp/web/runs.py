"""The routes of runs: start, stop, attach, look up, list, and send input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from quart import Response
from quart.wrappers import Request

from ..errors import Elsewhere, RunNotFound
from ..protocol.codec import encode_event
from ..protocol.message_json import message_of
from ..runs.runner import Watched
from ..runs.tree import tree_of
from .identity import Caller
from .parameters import (
    MAX_SELECTED,
    cursor,
    flag,
    idempotency_key,
    identifier,
    number,
    read_json,
    read_request,
    read_selection,
    run_id_of,
    state_of,
)
from .responses import json_response, question_body, receipt_body, run_body, run_headers
from .run_access import Known, RunAccess
from .sse import OwnEvents, hold_watch, run_stream

if TYPE_CHECKING:
    from ..endpoints.openapi import bodies

__all__ = ["RunRoutes"]


@attrs.frozen(kw_only=True)
class RunRoutes:
    access: RunAccess
    stream_by_default: bool = True
    sse_done: bool = False

    async def process(self, request: Request) -> Response:
        """`POST /process`: start a run.

        Stream its events, or answer with the terminal one, or (`background`) at once.
        """
        principal = await self.access.gate.identify(request)
        asked = await read_request(request)
        caller = Caller(principal, asked.user_id)
        pinned_by = idempotency_key(request)
        body = b"" if pinned_by is None else await request.get_data(True, False, False)
        watched = await self.access.start(caller, asked, idempotency_key=pinned_by, body=body)
        hold_watch(request, watched.subscriber)
        headers = run_headers(request, watched.run_id, watched.session_id)
        streamed = self.stream_by_default and not asked.background if asked.stream is None else asked.stream
        if streamed:
            return self._stream(watched, headers)
        if asked.background:
            response = json_response(run_body(await self.access.describe(watched), self._node_id), 202)
        else:
            response = Response(encode_event(await watched.terminal()), content_type="application/json")
        response.headers.update(headers)
        return response

    async def stop(self, request: Request) -> Response:
        """`POST /stop`: stop the run of a session, or one by its id; with `?wait=1` answer when it has ended."""
        principal = await self.access.gate.identify(request)
        asked = await read_request(request, require_input=False)
        receipt = await self.access.stop(
            Caller(principal, asked.user_id),
            session_id=asked.session_id,
            run_id=asked.run_id or asked.id,
            wait=flag(request, "wait"),
        )
        return json_response(receipt_body(receipt))

    async def list_all(self, request: Request) -> Response:
        """`GET /runs`."""
        records, more = await self.access.list_runs(
            await self._caller(request),
            session_id=identifier(request, "session_id"),
            state=state_of(request, "status"),
            before=run_id_of(request, "cursor"),
            limit=number(request, "limit", 20, least=1, most=100),
        )
        runs = [
            run_body(Known(each.key, self.access.registry.find(each.run_id), each), self._node_id)
            for each in records
        ]
        return json_response({"runs": runs, "cursor": more})

    async def questions(self, request: Request) -> Response:
        """`GET /questions`: the open questions of the caller's runs, on any node."""
        listed, more = await self.access.list_questions(
            await self._caller(request),
            session_id=identifier(request, "session_id"),
            before=run_id_of(request, "cursor"),
            limit=number(request, "limit", 20, least=1, most=100),
        )
        found = [question_body(record, question) for record, questions in listed for question in questions]
        body: bodies.QuestionList = {"questions": found, "cursor": more}
        return json_response(body)

    async def one(self, request: Request, run_id: str) -> Response:
        """`GET /runs/{id}`."""
        known = await self.access.look(await self._caller(request), run_id)
        return json_response(run_body(known, self._node_id))

    async def attach(self, request: Request, run_id: str) -> Response:
        """`GET /runs/{id}/stream`: the events after `Last-Event-ID` or `?starting_after=`, also those to come."""
        caller, after = await self._caller(request), cursor(request)
        if request.method == "HEAD":
            return await self._head(caller, request, run_id, "text/event-stream; charset=utf-8")
        watched = await self.access.attach(caller, run_id, after)
        if watched is None:
            return Response(b"", status=204)
        hold_watch(request, watched.subscriber)
        return self._stream(watched, run_headers(request, watched.run_id, watched.session_id))

    async def tree(self, request: Request, run_id: str) -> Response:
        """`GET /runs/{id}/tree`: the tasks of a live run, and where each waits."""
        known = await self.access.look(await self._caller(request), run_id)
        if known.run is None and not known.as_record.state.terminal:
            raise Elsewhere(known.as_record.node_id)
        root = None if known.run is None else tree_of(known.run)
        body: bodies.RunTree = {"run_id": run_id, "node": self._node_id, "root": root}
        return json_response(body)

    async def wait(self, request: Request, run_id: str) -> Response:
        """`GET /runs/{id}/wait`: the terminal response, when the run has ended."""
        caller = await self._caller(request)
        if request.method == "HEAD":
            return await self._head(caller, request, run_id, "application/json")
        watched = await self.access.attach_end(caller, run_id)
        hold_watch(request, watched.subscriber)
        response = Response(encode_event(await watched.terminal()), content_type="application/json")
        response.headers.update(run_headers(request, watched.run_id, watched.session_id))
        return response

    async def cancel(self, request: Request, run_id: str) -> Response:
        """`POST /runs/{id}/cancel`: 200 if the run has ended, else 202; `?wait=1` waits for its end."""
        receipt = await self.access.cancel(await self._caller(request), run_id, wait=flag(request, "wait"))
        return json_response(receipt_body(receipt), 200 if receipt.state.terminal else 202)

    async def cancel_several(self, request: Request) -> Response:
        """`POST /runs/cancel`: stop the runs in `run_ids`, or those of a `status`."""
        principal = await self.access.gate.identify(request)
        run_ids, state, user_id = await read_selection(request)
        caller = Caller(principal, user_id or identifier(request, "user_id"))
        if state is not None:
            records, _ = await self.access.list_runs(caller, state=state, limit=MAX_SELECTED)
            run_ids = [record.run_id for record in records]
        results = []
        for run_id in run_ids:
            try:
                receipt = await self.access.cancel(caller, run_id)
            except RunNotFound as exc:
                results.append({"run_id": run_id, "accepted": False, "code": exc.code})
            else:
                results.append({**receipt_body(receipt), "run_id": run_id})
        return json_response({"results": results})

    async def put_in(self, request: Request, run_id: str) -> Response:
        """`POST /runs/{id}/input`: send a message to `run.receive()`."""
        caller = await self._caller(request)
        await self.access.send_input(caller, run_id, message_of(await read_json(request), "$"))
        return json_response({"status": "accepted", "run_id": run_id}, 202)

    @property
    def _node_id(self) -> str:
        return self.access.registry.node_id

    async def _caller(self, request: Request) -> Caller:
        principal = await self.access.gate.identify(request)
        return Caller(principal, identifier(request, "user_id"))

    async def _head(self, caller: Caller, request: Request, run_id: str, content_type: str) -> Response:
        """Answer HEAD without opening a reader. A reader that leaves at once could stop the run as unwatched."""
        known = await self.access.look(caller, run_id)
        response = Response(b"", content_type=content_type)
        response.headers.update(run_headers(request, run_id, known.key.session_id))
        # The length of GET's body is not known.
        del response.headers["Content-Length"]
        return response

    def _stream(self, watched: Watched, headers: dict[str, str]) -> Response:
        return run_stream(watched, OwnEvents(done=self.sse_done), headers)
