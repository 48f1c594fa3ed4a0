"""The routes of runs: start, stop, look at one (WIRE, sections 1 and 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import attrs
from quart import Response
from quart.wrappers import Request

from ..abc import BaseInterruptBackend
from ..errors import RunNotFound, UnsupportedMediaType, ValidationError
from ..protocol.codec import decode_request, encode_event
from ..protocol.events import ResponseEvent
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Cause, Phase, RunRecord, RunState, StopReceipt
from ..protocol.request import AgentRequest
from ..runs import Run, RunRegistry, stop_run
from ..runs.runner import Runner, Watched, fill_ids
from .health import json_response
from .identity import Gate
from .sse import EventStreamBody, event_stream_response, run_headers

__all__ = ["RunRoutes", "receipt_body"]

WATCH = "trio_agentapp.watch"
"""Where a request's scope holds the reader that was opened for it, until its response does."""


@attrs.frozen(kw_only=True)
class RunRoutes:
    """The views, over the parts they need."""

    runner: Runner | None
    registry: RunRegistry
    backend: BaseInterruptBackend
    gate: Gate
    stream_by_default: bool = True
    sse_done: bool = False

    async def process(self, request: Request) -> Response:
        """`POST /process`: a run, streamed, or answered as a whole."""
        assert self.runner is not None  # noqa: S101  the route exists only with a handler
        principal = await self.gate.identify(request)
        asked = await read_request(request)
        key, run_id = fill_ids(asked, user_id=self.gate.user_of(principal, asked.user_id))
        await self.gate.may_start(principal, key, run_id)
        watched = await self.runner.start(asked)
        _extras(request)[WATCH] = watched.subscriber
        streamed = self.stream_by_default if asked.stream is None else asked.stream
        headers = run_headers(watched.run.run_id, watched.run.session_id)
        if streamed:
            body = EventStreamBody(
                watched.subscriber,
                on_wind_down=lambda: _leave(watched.run),
                done=self.sse_done,
            )
            return event_stream_response(body, headers)
        response = Response(await _terminal_json(watched), content_type="application/json")
        response.headers.update(headers)
        return response

    async def stop(self, request: Request) -> Response:
        """`POST /stop`: stop the session's run, or a named one; with `?wait=1` answer when it is over."""
        principal = await self.gate.identify(request)
        asked = await read_request(request, require_input=False)
        wait = _flag(request, "wait")
        run_id = asked.run_id or asked.id
        user_id = self.gate.user_of(principal, asked.user_id)
        if asked.session_id is None and run_id is None:
            raise ValidationError([("$.session_id", "a stop names a session, a run (run_id), or both")])
        key = None
        if asked.session_id is not None:
            user_id = user_id or asked.session_id
            key = SessionKey(user_id, asked.session_id)
        await self.gate.may_see(principal, "stop", user_id, asked.session_id, run_id)
        receipt = await stop_run(self.registry, self.backend, key, run_id, user_id=user_id, wait=wait)
        return json_response(receipt_body(receipt))

    async def one(self, request: Request, run_id: str) -> Response:
        """`GET /runs/{id}`."""
        principal = await self.gate.identify(request)
        run = self.registry.find(run_id)
        record = await self.backend.run_status(run_id) if run is None or run.state is RunState.IDLE else None
        if run is None and record is None:
            # The same question for an unknown run as for another's, so that neither can be told from its answer.
            await self.gate.may_see(principal, "read", None, None, run_id)
            raise RunNotFound
        key = run.key if run is not None else record.key if record is not None else None
        assert key is not None  # noqa: S101
        await self.gate.may_see(principal, "read", key.user_id, key.session_id, run_id)
        return json_response(_run_body(run, record, self.registry.node_id))


async def read_request(request: Request, *, require_input: bool = True) -> AgentRequest:
    """The request in a body.

    Raises:
        UnsupportedMediaType, MalformedBody, ValidationError; and Quart's own for a body too large or too slow.
    """
    if request.mimetype not in ("", "application/json") and not request.mimetype.endswith("+json"):
        raise UnsupportedMediaType(f"The body must be application/json, and this is {request.mimetype[:80]!r}.")
    return decode_request(await request.get_data(True, False, False), require_input=require_input)


def release_watch(request: Request, response: object) -> None:
    """Close the reader that was opened for a request, unless the response carries it to its client."""
    subscriber = _extras(request).pop(WATCH, None)
    body = getattr(response, "response", None)
    if subscriber is not None and not (isinstance(body, EventStreamBody) and body.subscriber is subscriber):
        subscriber.close()


def _extras(request: Request) -> dict[str, Any]:
    """The request's scope as ASGI defines it: a dict that servers and apps may add to."""
    return cast(dict[str, Any], request.scope)


async def _terminal_json(watched: Watched) -> bytes:
    with watched.subscriber as subscriber:
        while True:
            batch = await subscriber.receive()
            last = batch[-1] if batch else None
            if isinstance(last, ResponseEvent) and last.terminal:
                return encode_event(last)


def _leave(run: Run) -> None:
    """The server leaves, and this stream's client stays: the run ends, and its terminal event ends the stream."""
    run.stop(Cause.SHUTDOWN)


def _flag(request: Request, name: str) -> bool:
    value = request.args.get(name, "0")
    if value not in ("0", "1", "true", "false"):
        raise ValidationError([(f"query.{name}", "must be 0 or 1")])
    return value in ("1", "true")


def receipt_body(receipt: StopReceipt) -> Mapping[str, Any]:
    """A receipt as `POST /stop` answers it."""
    if receipt.stopped:
        message = "The run was stopped."
    elif receipt.accepted:
        message = "The run is being stopped."
    elif receipt.run_id is not None:
        message = "The run had ended already."
    else:
        message = "No run of this session is running."
    return {
        "status": "success",
        "message": message,
        "accepted": receipt.accepted,
        "stopped": receipt.stopped,
        "run_id": receipt.run_id,
        "state": receipt.state.value,
        "node": receipt.node,
        "latency_ms": receipt.latency_ms,
        "cleanup": receipt.cleanup.value,
    }


def _run_body(run: Run | None, record: RunRecord | None, node_id: str) -> Mapping[str, Any]:
    if run is not None:
        return {
            "run_id": run.run_id,
            "user_id": run.user_id,
            "session_id": run.session_id,
            "state": run.state.value,
            "phase": run.phase.value,
            "reason": run.cause.value if run.cause is not None and run.phase is not Phase.RUNNING else None,
            "stop_requested": run.stop_requested,
            "stuck": run.stuck,
            "started_at": run.created_at,
            "ended_at": None,
            "cleanup": run.cleanup_state.result.value,
            "cleanup_interrupted": run.cleanup_state.interrupted,
            "node": node_id,
        }
    assert record is not None  # noqa: S101
    return {
        "run_id": record.run_id,
        "user_id": record.key.user_id,
        "session_id": record.key.session_id,
        "state": record.state.value,
        "phase": Phase.ENDED.value if record.state.terminal else Phase.RUNNING.value,
        "reason": record.reason,
        "stop_requested": record.stop_requested,
        "stuck": False,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "cleanup": record.cleanup.value,
        "cleanup_interrupted": record.cleanup_interrupted,
        "node": record.node_id,
    }
