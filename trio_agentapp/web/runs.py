"""The routes of runs: start, stop, attach, look, list, put in (WIRE, sections 1 and 3)."""

from __future__ import annotations

import attrs
import trio
from quart import Response
from quart.wrappers import Request

from ..errors import BackendUnavailable, RunNotFound, ValidationError
from ..protocol.codec import encode_event
from ..protocol.events import ResponseEvent
from ..protocol.ids import identifier_fault
from ..protocol.lifecycle import Cause, RunState
from ..protocol.stored import message_of
from ..runs.runner import Watched
from ..server.stream_body import event_stream_response
from .answers import receipt_body, run_body
from .identity import Principal
from .links import run_headers
from .reading import (
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
from .responses import json_response
from .service import Known, RunService
from .sse import EventStreamBody, hold_watch

__all__ = ["RunRoutes", "wind_down"]


@attrs.frozen(kw_only=True)
class RunRoutes:
    """The views, over what every wire does with runs."""

    service: RunService
    stream_by_default: bool = True
    sse_done: bool = False

    async def process(self, request: Request) -> Response:
        """`POST /process`: a run, streamed, answered as a whole, or left to itself (`background`)."""
        principal = await self.service.gate.identify(request)
        asked = await read_request(request)
        body = await request.get_data(True, False, False)
        watched = await self.service.start(principal, asked, idempotency_key=idempotency_key(request), body=body)
        hold_watch(request, watched.subscriber)
        headers = run_headers(request, watched.run_id, watched.session_id)
        streamed = self.stream_by_default and not asked.background if asked.stream is None else asked.stream
        if streamed:
            return self._stream(watched, headers)
        if asked.background:
            response = json_response(run_body(await self.service.describe(watched), self._node_id), 202)
        else:
            response = Response(await _terminal_json(watched), content_type="application/json")
        response.headers.update(headers)
        return response

    async def stop(self, request: Request) -> Response:
        """`POST /stop`: stop the session's run, or a named one; with `?wait=1` answer when it is over."""
        principal = await self.service.gate.identify(request)
        asked = await read_request(request, require_input=False)
        receipt = await self.service.stop(
            principal,
            session_id=asked.session_id,
            run_id=asked.run_id or asked.id,
            user_id=asked.user_id,
            wait=flag(request, "wait"),
        )
        return json_response(receipt_body(receipt))

    async def list_all(self, request: Request) -> Response:
        """`GET /runs`."""
        principal = await self.service.gate.identify(request)
        records, more = await self.service.list_runs(
            principal,
            user_id=identifier(request, "user_id"),
            session_id=identifier(request, "session_id"),
            state=state_of(request, "status"),
            before=run_id_of(request, "cursor"),
            limit=number(request, "limit", 20, least=1, most=100),
        )
        runs = [
            run_body(Known(each.key, self.service.registry.find(each.run_id), each), self._node_id)
            for each in records
        ]
        return json_response({"runs": runs, "cursor": more})

    async def one(self, request: Request, run_id: str) -> Response:
        """`GET /runs/{id}`."""
        principal = await self.service.gate.identify(request)
        known = await self.service.look(principal, run_id, user_id=identifier(request, "user_id"))
        return json_response(run_body(known, self._node_id))

    async def attach(self, request: Request, run_id: str) -> Response:
        """`GET /runs/{id}/stream`: all events after `Last-Event-ID`, or `?starting_after=`, then what comes."""
        principal = await self.service.gate.identify(request)
        after = cursor(request)
        if request.method == "HEAD":
            return await self._head(principal, request, run_id, "text/event-stream; charset=utf-8")
        watched = await self.service.attach(principal, run_id, after, user_id=identifier(request, "user_id"))
        if watched is None:
            return Response(b"", status=204)
        hold_watch(request, watched.subscriber)
        return self._stream(watched, run_headers(request, watched.run_id, watched.session_id))

    async def wait(self, request: Request, run_id: str) -> Response:
        """`GET /runs/{id}/wait`: the terminal response, once there is one."""
        principal = await self.service.gate.identify(request)
        if request.method == "HEAD":
            return await self._head(principal, request, run_id, "application/json")
        watched = await self.service.attach_end(principal, run_id, user_id=identifier(request, "user_id"))
        hold_watch(request, watched.subscriber)
        response = Response(await _terminal_json(watched), content_type="application/json")
        response.headers.update(run_headers(request, watched.run_id, watched.session_id))
        return response

    async def cancel(self, request: Request, run_id: str) -> Response:
        """`POST /runs/{id}/cancel`: 202 it will end, 200 it had ended already, or has with `?wait=1`."""
        principal = await self.service.gate.identify(request)
        receipt = await self.service.cancel(
            principal, run_id, user_id=identifier(request, "user_id"), wait=flag(request, "wait")
        )
        return json_response(receipt_body(receipt), 200 if receipt.state.terminal else 202)

    async def cancel_several(self, request: Request) -> Response:
        """`POST /runs/cancel`: those named by `run_ids`, or all of a `status`."""
        principal = await self.service.gate.identify(request)
        run_ids, state, user_id = await read_selection(request)
        user_id = user_id or identifier(request, "user_id")
        if state is not None:
            records, _ = await self.service.list_runs(principal, user_id=user_id, state=state, limit=MAX_SELECTED)
            run_ids = [record.run_id for record in records]
        results = []
        for run_id in run_ids:
            try:
                receipt = await self.service.cancel(principal, run_id, user_id=user_id)
            except RunNotFound as exc:
                results.append({"run_id": run_id, "accepted": False, "code": exc.code})
            else:
                results.append({**receipt_body(receipt), "run_id": run_id})
        return json_response({"results": results})

    async def put_in(self, request: Request, run_id: str) -> Response:
        """`POST /runs/{id}/input`: a message for `run.receive()`."""
        principal = await self.service.gate.identify(request)
        message = message_of(await read_json(request), "$")
        await self.service.send_input(principal, run_id, message, user_id=identifier(request, "user_id"))
        return json_response({"status": "accepted", "run_id": run_id}, 202)

    async def session(self, request: Request, session_id: str) -> Response:
        """`GET /sessions/{session_id}`."""
        principal = await self.service.gate.identify(request)
        if fault := identifier_fault(session_id):
            raise ValidationError([("path.session_id", fault)])
        key, status = await self.service.session(principal, session_id, user_id=identifier(request, "user_id"))
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

    @property
    def _node_id(self) -> str:
        return self.service.registry.node_id

    async def _head(
        self, principal: Principal | None, request: Request, run_id: str, content_type: str
    ) -> Response:
        """Answer HEAD at once. It opens no reader: one that leaves could end a run that nobody else watches."""
        known = await self.service.look(principal, run_id, user_id=identifier(request, "user_id"))
        response = Response(b"", content_type=content_type)
        response.headers.update(run_headers(request, run_id, known.key.session_id))
        # The length of the body that GET would send is not known.
        del response.headers["Content-Length"]
        return response

    def _stream(self, watched: Watched, headers: dict[str, str]) -> Response:
        body = EventStreamBody(watched.subscriber, on_wind_down=lambda: wind_down(watched), done=self.sse_done)
        return event_stream_response(body, headers)


async def _terminal_json(watched: Watched) -> bytes:
    with watched.subscriber as subscriber:
        while True:
            try:
                batch = await subscriber.receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                raise BackendUnavailable(
                    "The end of this run cannot be read at present.", retry_after=1.0
                ) from None
            last = batch[-1] if batch else None
            if isinstance(last, ResponseEvent) and last.terminal:
                return encode_event(last)


def wind_down(watched: Watched) -> None:
    """The server leaves, and this stream's client stays.

    A run of this node ends, and its terminal event ends the stream; another's goes on, and so can its client.
    """
    if watched.run is None:
        watched.subscriber.close()
    else:
        watched.run.scope.stop(Cause.SHUTDOWN)
