"""Operations on runs, for every route and protocol: check the caller, then call the run core.

So each operation is authorised in one place. This module uses no HTTP requests or responses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import orjson
import trio

from ..abc import MAX_INPUT, BaseInterruptBackend, IdempotencyKeys, InputAnswer, RunInbox, RunListing
from ..errors import (
    IdempotencyConflict,
    QueueFull,
    RequestError,
    RunEnded,
    RunNotFound,
    SessionBusy,
    ValidationError,
)
from ..protocol.events import MessageEvent
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Cause, Phase, RunRecord, RunState, StopReceipt
from ..protocol.message import Message
from ..protocol.message_json import encode_message
from ..protocol.request import AgentRequest
from ..refusals import note_refusal
from ..runs import Run, RunRegistry, Subscriber, Viewing, stop_run
from ..runs.runner import Runner, Watched, fill_ids
from .identity import Action, Caller, Gate

__all__ = ["Known", "RunAccess", "wind_down"]

LISTED_AT_ONCE = 100

MAX_MESSAGES = 4096
"""Messages of one request. Front ends send the whole history with each turn, and stores keep 1000 messages."""

MAX_ATTACHMENTS = 256
"""Images, audio, videos and files of one request, by URL or in the body."""

ATTACHED = ("image", "audio", "video", "file")
"""Types of content that are attachments. The calls of tools and their outputs are data."""

POLL_INTERVAL = 0.02
"""Seconds between two lookups of a run that another request is about to start."""


@attrs.frozen
class Known:
    """A run: the live run if it is on this node, the record of the backend, or both. At least one is not None."""

    key: SessionKey
    run: Run | None
    record: RunRecord | None

    @property
    def as_record(self) -> RunRecord:
        """The record from the backend, else one made from the live run."""
        return self.record or self.latest

    @property
    def latest(self) -> RunRecord:
        """A record made from the live run, else the one from the backend."""
        if self.run is not None:
            return self.run.record()
        assert self.record is not None  # noqa: S101  there is always one of the two
        return self.record


@attrs.frozen(kw_only=True)
class RunAccess:
    """Operations on runs for a caller. Each raises `RequestError`s that are meant for the client."""

    runner: Runner | None
    registry: RunRegistry
    backend: BaseInterruptBackend
    viewing: Viewing
    gate: Gate
    entry: str = "process"
    """The route or protocol whose requests these are, for metrics and traces."""

    async def start(
        self,
        caller: Caller,
        asked: AgentRequest,
        *,
        idempotency_key: str | None = None,
        body: bytes = b"",
    ) -> Watched:
        """Start a run and watch it. If the id or the idempotency key has started a run before, watch that run.

        Ids that the request lacks are filled in. `body` is the request as the client sent it. It is compared with
        that of the first request with the same key.

        Raises:
            ValidationError: the request has more messages or attachments than a run takes.
            Forbidden: the caller may not start runs of this user.
            IdempotencyConflict: the key was used before, with another body.
            And what `Runner.start` raises. Nothing was started then.
        """
        assert self.runner is not None  # noqa: S101  without a handler there are no routes of runs
        _check_size(asked)
        user_id = caller.user_id
        key, run_id = fill_ids(asked, user_id=user_id)
        # Check this before the key is stored, so that no client can use up the keys of another user.
        await self.gate.may_start(caller, key, run_id)
        if idempotency_key is None:
            return await self.runner.start(asked, entry=self.entry)
        owner = user_id or ""
        pinned = f"{len(owner)}:{owner}{idempotency_key}"
        fingerprint = hashlib.sha256(body).hexdigest()
        keys = IdempotencyKeys.needed_from(self.backend)
        kept = await keys.pin(pinned, f"{fingerprint} {run_id} {key.session_id}")
        # A request without ids gets new ones each time. A repeated one takes those of the first request.
        first, asked.id, asked.session_id = kept.split(" ", 2)
        if first != fingerprint:
            raise IdempotencyConflict
        asked.user_id = user_id
        if fill_ids(asked) != (key, run_id):
            key, run_id = fill_ids(asked)
            await self.gate.may_start(caller, key, run_id)
        return await self._start_once(asked, key, run_id, pinned, kept)

    async def _start_once(
        self, asked: AgentRequest, key: SessionKey, run_id: str, pinned: str, kept: str
    ) -> Watched:
        """Start the run of an idempotency key, or watch it. A run of another session is never watched.

        If another request with this key is about to start the run, wait for the result. The key is released if no
        run was started, so that the request may be repeated.
        """
        assert self.runner is not None  # noqa: S101
        keys = IdempotencyKeys.needed_from(self.backend)
        while True:
            known = await self._find(run_id)
            if known is not None and known.key != key:
                # The client has chosen this id, and another user or session has a run with it.
                raise ValidationError([("$.id", "this id is taken by another run")])
            if known is not None and (known.run is None or known.run.lifecycle.phase is not Phase.CLAIMING):
                return await self._watch(known)
            try:
                return await self.runner.start(asked, entry=self.entry)
            except SessionBusy as exc:
                if exc.active_run_id != run_id:
                    await keys.unpin(pinned, kept)
                    raise
            except ValidationError:
                if await self._find(run_id) is None:
                    raise
            except RequestError as exc:
                if exc.retryable:
                    await keys.unpin(pinned, kept)
                raise
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    if await self._was_never_started(run_id):
                        await keys.unpin(pinned, kept)
                raise
            await trio.sleep(POLL_INTERVAL)

    async def _was_never_started(self, run_id: str) -> bool:
        """Return whether the claim of a run was abandoned, for instance because its client disconnected."""
        known = await self._find(run_id)
        return known is None or (known.run is None and known.as_record.reason == Cause.CLAIM_FAILED)

    async def attach(self, caller: Caller, run_id: str, after: int = -1) -> Watched | None:
        """Watch a run, on any node, from the event after number `after`. None: `after` was its last event.

        Raises:
            RunNotFound: unknown, or not for this caller. Elsewhere: its events are on another node.
            StreamExpired: its events are not kept any more.
        """
        known = await self.look(caller, run_id)
        subscriber = await self.viewing.attach(known.as_record, after)
        return None if subscriber is None else self._watched(known, subscriber)

    async def current(self, caller: Caller, session_id: str) -> Known | None:
        """Look up the run of a session that has not ended; None if there is none, or not for this caller."""
        user_id = caller.user_id or session_id
        status = await self.backend.status(SessionKey(user_id, session_id))
        if status.run_id is None or status.state.terminal:
            return None
        try:
            return await self.look(caller, status.run_id)
        except RunNotFound:
            return None

    async def attach_end(self, caller: Caller, run_id: str) -> Watched:
        """Watch a run for its last event only."""
        known = await self.look(caller, run_id)
        subscriber = await self.viewing.attach_end(known.as_record)
        assert subscriber is not None  # noqa: S101  this reader starts before the last event
        return self._watched(known, subscriber)

    async def messages_so_far(self, caller: Caller, run_id: str) -> Sequence[MessageEvent]:
        """Return the messages that a live run has completed, on any node. Raises as `attach` does."""
        return await self.viewing.messages_so_far((await self.look(caller, run_id)).as_record)

    async def _watch(self, known: Known) -> Watched:
        subscriber = await self.viewing.attach(known.as_record)
        assert subscriber is not None  # noqa: S101  every run has a first event
        return self._watched(known, subscriber)

    def _watched(self, known: Known, subscriber: Subscriber) -> Watched:
        run_id = known.as_record.run_id
        return Watched(key=known.key, run_id=run_id, subscriber=subscriber, run=self.registry.find(run_id))

    async def describe(self, watched: Watched) -> Known:
        """Look up a run that its caller watches already."""
        run = self.registry.find(watched.run_id)
        record = None if run is not None else await self.backend.run_status(watched.run_id)
        if run is None and record is None:
            raise RunNotFound
        return Known(watched.key, run, record)

    async def look(self, caller: Caller, run_id: str, action: Action = "read") -> Known:
        """Look up a run. Raises RunNotFound: unknown, or not for this caller."""
        known = await self._find(run_id)
        if known is None or caller.named_user not in (None, known.key.user_id):
            # The hook is asked for an unknown run too, so that unknown and forbidden runs look the same.
            await self.gate.may_see(caller, action, None, None, run_id)
            raise RunNotFound
        await self.gate.may_see(caller, action, known.key.user_id, known.key.session_id, run_id)
        return known

    async def _find(self, run_id: str) -> Known | None:
        run = self.registry.find(run_id)
        record = (
            await self.backend.run_status(run_id) if run is None or run.lifecycle.state is RunState.IDLE else None
        )
        key = run.key if run is not None else record.key if record is not None else None
        return None if key is None else Known(key, run, record)

    async def stop(
        self, caller: Caller, *, session_id: str | None = None, run_id: str | None = None, wait: bool = False
    ) -> StopReceipt:
        """Stop the run of a session, or the run with an id, on any node.

        Raises:
            ValidationError: neither a session nor a run is given. RunNotFound: not for this caller.
            BackendUnavailable: the stop was not delivered; safe to repeat.
        """
        user_id = caller.user_id
        if session_id is None and run_id is None:
            raise ValidationError([("$.session_id", "a stop needs a session_id, a run_id, or both")])
        key = None
        if session_id is not None:
            user_id = user_id or session_id
            key = SessionKey(user_id, session_id)
        await self.gate.may_see(caller, "stop", user_id, session_id, run_id)
        return await stop_run(self.registry, self.backend, key, run_id, user_id=user_id, wait=wait)

    async def cancel(self, caller: Caller, run_id: str, *, wait: bool = False) -> StopReceipt:
        """Stop the run with this id.

        Raises:
            RunNotFound: unknown, or not for this caller. The stop of an unknown run is kept: a run that starts
                with this id later is stopped.
        """
        try:
            known = await self.look(caller, run_id, "stop")
        except RunNotFound:
            await self.gate.may_see(caller, "stop", caller.user_id, None, run_id)
            await stop_run(self.registry, self.backend, None, run_id, user_id=caller.user_id)
            raise
        return await stop_run(self.registry, self.backend, known.key, run_id, wait=wait)

    async def send_input(self, caller: Caller, run_id: str, message: Message) -> None:
        """Send a message to a running run, on any node.

        Raises:
            RunNotFound: unknown, or not for this caller. RunEnded: the run is not running.
            QueueFull: the run has not received earlier messages yet.
            ValidationError: it answers a question that is not open.
        """
        known = await self.look(caller, run_id, "start")
        if known.run is not None and known.run.lifecycle.state is RunState.RUNNING:
            if not known.run.input.expects(message):
                raise ValidationError([("$", "answers a question that is not open")])
            answer = InputAnswer.OK if known.run.input.give(message) else InputAnswer.FULL
        elif known.run is None and known.as_record.state is RunState.RUNNING:
            answer = await RunInbox.needed_from(self.backend).send_input(known.key, run_id, encode_message(message))
        else:
            answer = InputAnswer.GONE
        if answer is InputAnswer.GONE:
            raise RunEnded
        if answer is InputAnswer.FULL:
            raise QueueFull("The input queue of this run is full.", limit="queued_inputs", quota=MAX_INPUT)

    async def list_questions(
        self,
        caller: Caller,
        *,
        session_id: str | None = None,
        before: str | None = None,
        limit: int = LISTED_AT_ONCE,
    ) -> tuple[Sequence[tuple[RunRecord, Sequence[Mapping[str, Any]]]], str | None]:
        """Return running runs of the caller's user with their open questions, and the cursor of the next page.

        `limit` is the number of runs with questions. Questions of runs on other nodes are those that the other node
        has posted.

        Raises:
            ValidationError: no user is given. RunNotFound: not for this caller.
        """
        found: list[tuple[RunRecord, Sequence[Mapping[str, Any]]]] = []
        while True:
            records, before = await self.list_runs(
                caller, session_id=session_id, state=RunState.RUNNING, before=before, limit=LISTED_AT_ONCE
            )
            for place, record in enumerate(records):
                if not (questions := self._questions_of(record)):
                    continue
                found.append((record, questions))
                if len(found) == limit:
                    more = place + 1 < len(records) or before is not None
                    return found, record.run_id if more else None
            if before is None:
                return found, None

    def _questions_of(self, record: RunRecord) -> Sequence[Mapping[str, Any]]:
        run = self.registry.find(record.run_id)
        if run is not None:
            return [question.listed() for question in run.input.questions]
        posted: Sequence[Mapping[str, Any]] = orjson.loads(record.questions) if record.questions else []
        return posted

    async def list_runs(
        self,
        caller: Caller,
        *,
        session_id: str | None = None,
        state: RunState | None = None,
        before: str | None = None,
        limit: int = LISTED_AT_ONCE,
    ) -> tuple[Sequence[RunRecord], str | None]:
        """Return runs of the caller's user, the newest first, and the cursor of the next page, None at the end.

        Raises:
            ValidationError: no user is given. RunNotFound: not for this caller.
        """
        user_id = caller.user_id
        if user_id is None:
            raise ValidationError([("query.user_id", "is required, because requests are not authenticated")])
        await self.gate.may_see(caller, "list", user_id, session_id, None)
        found: list[RunRecord] = []
        listing = RunListing.needed_from(self.backend)
        while True:
            records, before = await listing.list_runs(user_id, before=before, limit=LISTED_AT_ONCE)
            for place, record in enumerate(records):
                if session_id not in (None, record.key.session_id) or state not in (None, record.state):
                    continue
                found.append(record)
                if len(found) == limit:
                    more = place + 1 < len(records) or before is not None
                    return found, record.run_id if more else None
            if before is None:
                return found, None


def _check_size(asked: AgentRequest) -> None:
    if len(asked.input) > MAX_MESSAGES:
        note_refusal("messages")
        raise ValidationError([("$.input", f"must have at most {MAX_MESSAGES} messages, not {len(asked.input)}")])
    attachments = sum(part.type in ATTACHED for message in asked.input for part in message.content)
    if attachments > MAX_ATTACHMENTS:
        note_refusal("attachments")
        raise ValidationError(
            [("$.input", f"must have at most {MAX_ATTACHMENTS} images and files, not {attachments}")]
        )


def wind_down(watched: Watched) -> None:
    """End the stream of a run because the server shuts down without a drain.

    A run of this node is stopped, and its terminal event ends the stream. A run of another node continues, and only
    the stream is closed: the client can attach to it at another node.
    """
    if watched.run is None:
        watched.subscriber.close()
    else:
        watched.run.scope.stop(Cause.SHUTDOWN)
