"""What every entry does with runs, whatever wire it speaks: who asks, whether they may, and then the run core.

The one place that SSE, WebSocket and all other wires pass (WIRE, section 6). It knows no request and no response.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import attrs
import trio

from ..abc import BaseInterruptBackend, IdempotencyKeys, InputAnswer, RunInbox, RunListing
from ..errors import (
    IdempotencyConflict,
    QueueFull,
    RequestError,
    RunEnded,
    RunNotFound,
    SessionBusy,
    ValidationError,
)
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Cause, RunRecord, RunState, SessionStatus, StopReceipt
from ..protocol.message import Message
from ..protocol.request import AgentRequest
from ..protocol.transcript import encode_message
from ..runs import Run, RunRegistry, Subscriber, Viewing, stop_run
from ..runs.runner import Runner, Watched, fill_ids
from .identity import Action, Gate, Principal

__all__ = ["Known", "RunService"]

LISTED_AT_ONCE = 100

UNDECIDED = 0.02
"""Seconds between two looks at a run that another request is about to start."""


@attrs.frozen
class Known:
    """What there is of a run: itself, if it is live on this node, and its record, if it is not."""

    key: SessionKey
    run: Run | None
    record: RunRecord | None

    @property
    def as_record(self) -> RunRecord:
        if self.record is not None:
            return self.record
        assert self.run is not None  # noqa: S101  one of the two there always is
        run = self.run
        return RunRecord(run_id=run.run_id, key=run.key, state=run.state, token=run.token)


@attrs.frozen(kw_only=True)
class RunService:
    """All methods raise the `RequestError`s that their callers send on."""

    runner: Runner | None
    registry: RunRegistry
    backend: BaseInterruptBackend
    viewing: Viewing
    gate: Gate

    async def start(
        self,
        principal: Principal | None,
        asked: AgentRequest,
        *,
        idempotency_key: str | None = None,
        body: bytes = b"",
    ) -> Watched:
        """Start a run and watch it, or watch the one that this request, or this key, has started already.

        Ids that the request lacks are filled in.

        Raises:
            Forbidden: not for this user. IdempotencyConflict: the key came before, with another body.
            And what `Runner.start` raises: nothing was started.
        """
        assert self.runner is not None  # noqa: S101  no entry exists without a handler
        named = self.gate.user_of(principal, asked.user_id)
        key, run_id = fill_ids(asked, user_id=named)
        pinned = None
        if idempotency_key is not None:
            owner = "" if named is None else named
            pinned = f"{len(owner)}:{owner}{idempotency_key}"
            fingerprint = hashlib.sha256(body).hexdigest()
            keys = IdempotencyKeys.needed_from(self.backend)
            kept = await keys.pin(pinned, f"{fingerprint} {run_id} {key.session_id}")
            # Who sends no ids gets fresh ones for each request: what makes two of them one is the key.
            first, asked.id, asked.session_id = kept.split(" ", 2)
            if first != fingerprint:
                raise IdempotencyConflict
            asked.user_id = named
            key, run_id = fill_ids(asked)
        await self.gate.may_start(principal, key, run_id)
        if pinned is None:
            return await self.runner.start(asked)
        return await self._start_once(asked, run_id, pinned, kept)

    async def _start_once(self, asked: AgentRequest, run_id: str, pinned: str, kept: str) -> Watched:
        """Start the run of a key, or watch it: another request with this key may have done so, or be about to."""
        assert self.runner is not None  # noqa: S101
        keys = IdempotencyKeys.needed_from(self.backend)
        while True:
            known = await self._find(run_id)
            if known is not None and (known.run is None or not known.run.undecided):
                return await self._watch(known)
            try:
                return await self.runner.start(asked)
            except SessionBusy as exc:
                if exc.active_run_id != run_id:
                    await keys.unpin(pinned, kept)
                    raise
            except ValidationError:
                if await self._find(run_id) is None:
                    raise
            except RequestError as exc:
                if exc.retryable:
                    # Nothing was started: the next try is a first one, and may have a run id of its own.
                    await keys.unpin(pinned, kept)
                raise
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    if await self._was_never_started(run_id):
                        await keys.unpin(pinned, kept)
                raise
            await trio.sleep(UNDECIDED)

    async def _was_never_started(self, run_id: str) -> bool:
        """Whether the claim of a run was given up, as by a client that left, so that nobody else has it."""
        known = await self._find(run_id)
        return known is None or (known.run is None and known.as_record.reason == Cause.CLAIM_FAILED)

    async def attach(
        self, principal: Principal | None, run_id: str, after: int = -1, *, user_id: str | None = None
    ) -> Watched | None:
        """Watch a run from an event on, wherever it runs; None: it is over, and `after` was its last event.

        Raises:
            RunNotFound: unknown, or not yours. Elsewhere, StreamExpired: its events cannot be had here, or at all.
        """
        known = await self.look(principal, run_id, user_id=user_id)
        subscriber = await self.viewing.attach(known.as_record, after)
        return None if subscriber is None else self._watched(known, subscriber)

    async def attach_end(self, principal: Principal | None, run_id: str, *, user_id: str | None = None) -> Watched:
        """Watch a run for the sake of its last event only."""
        known = await self.look(principal, run_id, user_id=user_id)
        subscriber = await self.viewing.attach_end(known.as_record)
        assert subscriber is not None  # noqa: S101  the last event is always ahead of this reader
        return self._watched(known, subscriber)

    async def _watch(self, known: Known) -> Watched:
        subscriber = await self.viewing.attach(known.as_record)
        assert subscriber is not None  # noqa: S101  every run has a first event
        return self._watched(known, subscriber)

    def _watched(self, known: Known, subscriber: Subscriber) -> Watched:
        run_id = known.as_record.run_id
        return Watched(key=known.key, run_id=run_id, subscriber=subscriber, run=self.registry.find(run_id))

    async def describe(self, watched: Watched) -> Known:
        """What there is of a run that its caller may watch."""
        run = self.registry.find(watched.run_id)
        record = None if run is not None else await self.backend.run_status(watched.run_id)
        if run is None and record is None:
            raise RunNotFound
        return Known(watched.key, run, record)

    async def look(
        self,
        principal: Principal | None,
        run_id: str,
        *,
        action: Action = "read",
        user_id: str | None = None,
    ) -> Known:
        """What there is of a run. Raises RunNotFound: nothing, or not for this principal."""
        known = await self._find(run_id)
        if known is None or user_id not in (None, known.key.user_id):
            # The same question for an unknown run as for another's, so that neither can be told from its answer.
            await self.gate.may_see(principal, action, None, None, run_id)
            raise RunNotFound
        await self.gate.may_see(principal, action, known.key.user_id, known.key.session_id, run_id)
        return known

    async def _find(self, run_id: str) -> Known | None:
        run = self.registry.find(run_id)
        record = await self.backend.run_status(run_id) if run is None or run.state is RunState.IDLE else None
        key = run.key if run is not None else record.key if record is not None else None
        return None if key is None else Known(key, run, record)

    async def stop(
        self,
        principal: Principal | None,
        *,
        session_id: str | None = None,
        run_id: str | None = None,
        user_id: str | None = None,
        wait: bool = False,
    ) -> StopReceipt:
        """Stop the run of a session, or a named one, wherever it runs.

        Raises:
            ValidationError: neither was named. RunNotFound: not for this principal.
            BackendUnavailable: not delivered; safe to repeat.
        """
        user_id = self.gate.user_of(principal, user_id)
        if session_id is None and run_id is None:
            raise ValidationError([("$.session_id", "a stop names a session, a run (run_id), or both")])
        key = None
        if session_id is not None:
            user_id = user_id or session_id
            key = SessionKey(user_id, session_id)
        await self.gate.may_see(principal, "stop", user_id, session_id, run_id)
        return await stop_run(self.registry, self.backend, key, run_id, user_id=user_id, wait=wait)

    async def cancel(
        self, principal: Principal | None, run_id: str, *, user_id: str | None = None, wait: bool = False
    ) -> StopReceipt:
        """Stop one run by its id alone. An unknown run is not found, and yet stopped should it still come.

        Raises:
            RunNotFound: unknown, or not for this principal.
        """
        try:
            known = await self.look(principal, run_id, action="stop", user_id=user_id)
        except RunNotFound:
            owner = self.gate.user_of(principal, user_id)
            await self.gate.may_see(principal, "stop", owner, None, run_id)
            await stop_run(self.registry, self.backend, None, run_id, user_id=owner)
            raise
        return await stop_run(self.registry, self.backend, known.key, run_id, wait=wait)

    async def send_input(
        self, principal: Principal | None, run_id: str, message: Message, *, user_id: str | None = None
    ) -> None:
        """Put a message into a run that runs, wherever it does.

        Raises:
            RunNotFound: unknown, or not for this principal. RunEnded: it does not run. QueueFull: it has not
            received the messages before.
        """
        known = await self.look(principal, run_id, action="start", user_id=user_id)
        if known.run is not None and known.run.state is RunState.RUNNING:
            answer = InputAnswer.OK if known.run.give_input(message) else InputAnswer.FULL
        elif known.run is None and known.as_record.state is RunState.RUNNING:
            answer = await RunInbox.needed_from(self.backend).send_input(known.key, run_id, encode_message(message))
        else:
            answer = InputAnswer.GONE
        if answer is InputAnswer.GONE:
            raise RunEnded
        if answer is InputAnswer.FULL:
            raise QueueFull("The run has not received the messages before yet.", retry_after=1.0)

    async def list_runs(
        self,
        principal: Principal | None,
        *,
        user_id: str | None,
        session_id: str | None = None,
        state: RunState | None = None,
        before: str | None = None,
        limit: int = LISTED_AT_ONCE,
    ) -> tuple[Sequence[RunRecord], str | None]:
        """Runs of a user, the youngest first, and the cursor to go on with; None: those were all.

        Raises:
            ValidationError: nobody says whose runs. RunNotFound: not for this principal.
        """
        user_id = self.gate.user_of(principal, user_id)
        if user_id is None:
            raise ValidationError([("query.user_id", "is required: without authentication nobody else says it")])
        await self.gate.may_see(principal, "list", user_id, session_id, None)
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

    async def session(
        self, principal: Principal | None, session_id: str, *, user_id: str | None
    ) -> tuple[SessionKey, SessionStatus]:
        """The state of a session. Raises RunNotFound: not for this principal."""
        key = SessionKey(self.gate.user_of(principal, user_id) or session_id, session_id)
        await self.gate.may_see(principal, "read", key.user_id, key.session_id, None)
        return key, await self.backend.status(key)
