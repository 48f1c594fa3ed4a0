"""One run from its claim to its end: claim the session, wait in its queue, drive the handler, finish.

The caller awaits `RunTask.claim`, which raises the refusals. `RunTask.live` is the task of the run; the registry
starts it in its nursery.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

import attrs
import trio

from ..abc import (
    MAX_QUEUED,
    Busy,
    Claim,
    ClaimResult,
    Ended,
    Granted,
    Lease,
    Queued,
    QueueIsFull,
    RunEnd,
    RunFacts,
)
from ..errors import BackendUnavailable, QueueFull, RequestError, SessionBusy, ValidationError
from ..protocol.codec import encode_event
from ..protocol.events import Failure, ResponseEvent
from ..protocol.ids import new_run_id
from ..protocol.lifecycle import Cause, Ending, Phase, RunState
from ..protocol.request import MultitaskStrategy
from .containment import closing_dropped
from .driver import Driven, drive
from .failures import ctrl_c_in, is_cancelled
from .handler import Handler
from .keeper import call_limit
from .log_fields import add_log_fields
from .node import Node
from .run import Run, current_run
from .session_queue import place_of, wait_in_queue
from .terminal_events import (
    adopted,
    error_message,
    fallback_terminal_events,
    numbered_from,
    restated,
    terminal_events,
)

__all__ = ["RunTask"]

logger = logging.getLogger("trio_agentapp.runs")

T = TypeVar("T")

MEMORY_TIMEOUT = 5.0
"""Seconds by which adding a run's messages to the history of its session may delay the end of the run."""


class RunTask:
    """One run, from its claim to its end."""

    __slots__ = (
        "_early_ending",
        "_facts",
        "_handler",
        "_is_recorded",
        "_lease",
        "_node",
        "_offered",
        "_queued",
        "run",
    )

    def __init__(
        self,
        node: Node,
        run: Run,
        handler: Handler,
        offered: Mapping[str, object],
        *,
        strategy: MultitaskStrategy,
    ) -> None:
        self.run = run
        self._node = node
        self._handler = handler
        self._offered = offered
        self._queued: Queued | None = None
        self._early_ending: Ending | None = None
        """How the run ended before its handler was started."""
        self._is_recorded = False
        """Whether the backend has recorded this ending already, because the run was stopped before its claim."""
        run.shared = node.store is not None and node.store.shared
        run.rolls_back_replaced = strategy == "rollback"
        if node.backend.timings is not None:
            run.on_input_wanted = node.inbox.fetch_soon
            run.on_questions = node.questions.post_soon
        self._facts = RunFacts(
            run_id=run.run_id, key=run.key, node_id=node.node_id, entry=run.entry, handler=run.handler_name
        )
        self._lease = Lease(
            key=run.key,
            run_id=run.run_id,
            node_id=node.node_id,
            nonce=new_run_id(),
            place=place_of(strategy),
            fallback_events=fallback_terminal_events(run.builder) if run.shared else {},
        )

    # Claim.

    async def claim(self) -> None:
        """Claim the session. On return the run owns it, is queued for it, or was stopped before its start.

        Raises:
            SessionBusy, QueueFull, BackendUnavailable, ValidationError: there is no run.
        """
        began_at = trio.current_time()
        result: ClaimResult = "abandoned"
        try:
            with self._node.instruments.claiming(self._facts):
                self._accept(await self._ask(self._send_claim))
            result = self._claimed_as()
        except BaseException as exc:
            result = _refused_as(exc)
            if self.run.lifecycle.phase is Phase.CLAIMING:
                self.run.lifecycle.refused()
            self.run.close()
            raise
        finally:
            self._node.instruments.claimed(self._facts, result, trio.current_time() - began_at)

    def _claimed_as(self) -> ClaimResult:
        if self._queued is not None:
            return "queued"
        return "granted" if self._early_ending is None else "stopped"

    async def _send_claim(self) -> Claim:
        asked_at = trio.current_time()
        claim = await self._node.backend.claim(self._lease)
        if isinstance(claim, Granted):
            self.run.token = claim.token
            self.run.lifecycle.claimed()
            self._node.keeper.granted(self.run, asked_at)
        return claim

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """Await the answer to a claim. If there is none, take the claim back, since it may have been granted."""
        try:
            return await question()
        except BaseException as exc:
            await self._node.end_writer.take_back(self._lease, self._node.nursery)
            if isinstance(exc, RequestError) or not isinstance(exc, Exception):
                raise
            logger.exception("the interrupt backend failed to claim")
            raise BackendUnavailable(
                "The session could not be claimed; nothing was started.", retry_after=1.0
            ) from exc

    def _accept(self, claim: Claim) -> None:
        run = self.run
        match claim:
            case Granted(token):
                run.lease = self._lease = self._lease.with_token(token)
                self._open_sink()
            case Queued():
                run.lifecycle.queued()
                self._queued = claim
            case Ended(RunState.STOPPED, Cause.STOPPED_BEFORE_START):
                run.scope.stop(Cause.STOPPED_BEFORE_START)
                self._early_ending = Ending(cause=Cause.STOPPED_BEFORE_START, stop_requested=True)
                self._is_recorded = True
            case Busy(active, retry_after):
                raise SessionBusy(active, retry_after=retry_after)
            case QueueIsFull():
                raise QueueFull(
                    f"The queue for this session is full ({MAX_QUEUED} runs).",
                    limit="queued_runs",
                    quota=MAX_QUEUED,
                )
            case Ended():
                raise ValidationError([("$.id", "a run of this id has ended already")])
            case _:
                raise ValidationError([("$.id", "this id is taken by another run")])

    def _open_sink(self) -> None:
        run, store = self.run, self._node.store
        sink = None if store is None else store.sink(self._lease, run.log.put, run.apply_renewal)
        if store is not None and sink is not None:
            run.sink = sink
            run.log.keep_in(partial(store.read, run.key, run.run_id))

    # The task of the run.

    async def live(self) -> None:
        """Wait in the queue, drive the handler, finish.

        Only its own scope cancels the run. An exception of the runtime is logged and ends this run alone. Ctrl-C is
        raised, since it ends the program.
        """
        run = self.run
        add_log_fields(run_id=run.run_id, session_hash=run.key.digest, node_id=self._node.node_id)
        try:
            with self._node.instruments.running(self._facts):
                fatal = await self._live()
        except BaseException as exc:
            run.close()
            if is_cancelled(exc) or ctrl_c_in(exc) is not None:
                raise
            logger.critical("run %s: the runtime failed; the run is abandoned", run.run_id, exc_info=True)
            return
        if fatal is not None:
            raise fatal

    async def _live(self) -> BaseException | None:
        """Execute the run. Returns the exception that ends the program (Ctrl-C), or None."""
        # `drive` shields the run by the run's own scope, and the other steps shield themselves. One scope around
        # all of them would take 0.7 KiB for each run.
        if self._queued is not None:
            with trio.CancelScope(shield=True):
                await self._wait_in_queue(self._queued)
        self._send_first_event()
        if self._early_ending is not None:
            self._skip_handler()
            await self._finish(self._early_ending)
            return None
        logger.info("run %s has started (handler %r)", self.run.run_id, self.run.handler_name)
        driven = await self._roll_back_replaced() or await drive(self.run, self._handler, self._offered)
        await self._finish(driven.ending, error_message(driven.ending.cause, driven.error, debug=self._node.debug))
        return driven.fatal

    async def end_unstarted(self) -> None:
        """End the run instead of starting it, because the registry was closed while it was claiming."""
        self.run.scope.stop(Cause.SHUTDOWN)
        self._skip_handler()
        await self._finish(self._early_ending or Ending(cause=self.run.lifecycle.cause or Cause.SHUTDOWN))

    # Wait in the queue.

    async def _wait_in_queue(self, queued: Queued) -> None:
        """Wait until the run owns its session, or was ended in the queue."""
        run = self.run
        try:
            claim = await self._ask(
                partial(wait_in_queue, self._node.backend, run, self._lease, queued, self._send_claim)
            )
            if claim is not None:
                self._accept(claim)
                return
        except RequestError as exc:
            logger.warning("run %s: it cannot wait for its session any more: %s", run.run_id, exc)
            self._early_ending = Ending(cause=Cause.CLAIM_FAILED)
            return
        cause = run.lifecycle.cause or Cause.SHUTDOWN
        self._early_ending = Ending(
            cause=Cause.STOPPED_BEFORE_START if cause is Cause.STOPPED else cause,
            stop_requested=run.lifecycle.asked_to_stop,
        )

    # Drive the handler: see `driver`.

    def _send_first_event(self) -> None:
        # A drain may have sent the terminal event already, to readers of a run that was still claiming.
        if not self.run.log.closed:
            self.run.sink.put(self.run.builder.start())

    def _skip_handler(self) -> None:
        """Report to the lifecycle that the run ends without starting its handler."""
        if self.run.lifecycle.phase in (Phase.RUNNING, Phase.STOPPING):
            self.run.scope.body_ended(raised=True)
            self.run.lifecycle.unwound(failed=True, cleanup_timed_out=False)

    async def _roll_back_replaced(self) -> Driven | None:
        """Roll back what the interrupted runs have saved. If that fails, the handler must not start.

        A stop does not cancel this, because state and history have to be rolled back together. A stop that arrives
        meanwhile takes effect afterwards, and the handler does not start. The time is limited as for cleanup, by
        the budget and by the lease, since after the lease another run may own the session.
        """
        run, undo = self.run, self._node.undo
        if not run.rolls_back_replaced or undo is None:
            return None
        token = current_run.set(run)
        try:
            async with run.cleanup_state.open(strict=True):
                for run_id in run.replaces:
                    record = await self._node.backend.run_status(run_id)
                    if record is not None and record.state is not RunState.FINISHED:
                        await closing_dropped(undo, run.key, record.token)
        except Exception as exc:
            logger.exception("run %s: what the run before it saved could not be rolled back", run.run_id)
            timed_out = run.scope.stopped_at() is not None and run.cleanup_state.timed_out
            run.scope.body_ended(raised=True)
            cause = run.lifecycle.unwound(failed=True, cleanup_timed_out=timed_out)
            ending = Ending(
                cause=cause, cleanup=run.cleanup_state.result, stop_requested=run.lifecycle.asked_to_stop
            )
            return Driven(ending, exc, None)
        finally:
            current_run.reset(token)
        return None

    # Finish.

    async def _finish(self, ending: Ending, message: str = "") -> None:
        """Write the terminal state, then send the terminal event.

        So the session is free when a client gets the event.
        """
        with trio.CancelScope(shield=True):
            await self._finish_shielded(ending, message)

    async def _finish_shielded(self, ending: Ending, message: str) -> None:
        run, store = self.run, self._node.store
        unwound_at = trio.current_time()
        last: ResponseEvent | None = None
        if not run.log.closed:  # otherwise a drain has sent the terminal event already
            *closing, terminal = terminal_events(run.builder, ending, message)
            assert isinstance(terminal, ResponseEvent)  # noqa: S101
            last = terminal
            run.sink.put(closing)
        if self._is_recorded:
            recorded, ended_at = ending, await self._recorded_time()
        else:
            recorded, ended_at = await self._record(ending, last)
        run.lifecycle.ended(recorded)
        if last is not None:
            if recorded.cause is not ending.cause:
                last = restated(last, recorded)
            if ended_at is not None:
                # Use the time of the record, which readers on other nodes get.
                last = attrs.evolve(last, completed_at=int(ended_at))
            if not run.log.closed:
                run.log.put(numbered_from(run.log.end, [last]))
        if store is not None:
            try:
                store.keep(run.key, run.run_id, run.log.kept)
            except Exception:
                # A store of the user may raise anything. The end is recorded by now, and readers have got it.
                logger.exception("run %s: its events could not be kept by %s", run.run_id, type(store).__name__)
        run.close()
        _log_end(run, recorded, None if last is None else last.error)
        self._node.instruments.ended(self._facts, _end_of(run, recorded, unwound_at))

    async def _recorded_time(self) -> float | None:
        try:
            with call_limit(self._node.backend.timings):
                record = await self._node.backend.run_status(self.run.run_id)
        except (BackendUnavailable, trio.TooSlowError):
            return None
        return None if record is None else record.ended_at

    async def _record(self, ending: Ending, last: ResponseEvent | None) -> tuple[Ending, float | None]:
        """Write the end of the run.

        Returns the recorded ending and its time (Unix seconds). If another node wrote an ending before, it is that
        one.
        """
        run, writer = self.run, self._node.end_writer
        if run.lease is not None:
            await self._remember()
        until = writer.until(run, ending)
        if run.sink is not run.log:
            # A Redis server that is out of memory may refuse events until then, and still accept the end of the
            # run.
            with trio.move_on_at(min(until, writer.lease_end())):
                await run.sink.flush()
            run.sink.give_up()
        if self._lease.fallback_events and last is not None:
            [event] = numbered_from(run.log.end, [attrs.evolve(last, completed_at=0)])
            ending = attrs.evolve(ending, terminal_event=encode_event(event))
        record = await writer.write(self._lease, ending, until=until)
        if record is not None:
            return adopted(ending, record), record.ended_at
        if self._node.backend.timings is None:
            return ending, None
        # The lease has expired in the meantime. Other nodes have seen the run end as an error.
        return attrs.evolve(ending, cause=Cause.LEASE_LOST), None

    async def _remember(self) -> None:
        run, remember = self.run, self._node.remember
        if remember is None:
            return
        with trio.move_on_after(MEMORY_TIMEOUT) as limit:
            try:
                # A store of the user may raise anything.
                await closing_dropped(remember, run)
            except Exception:
                logger.exception("run %s: its messages could not be added to the session's history", run.run_id)
        if limit.cancelled_caught:
            logger.error("run %s: adding its messages to the session's history took too long", run.run_id)


def _refused_as(error: BaseException) -> ClaimResult:
    match error:
        case SessionBusy():
            return "busy"
        case QueueFull():
            return "queue_full"
        case BackendUnavailable():
            return "unavailable"
        case Exception():
            return "refused"
    return "abandoned"


def _end_of(run: Run, ending: Ending, unwound_at: float) -> RunEnd:
    stopped_at, first = run.scope.stopped_at(), run.first_item_at
    return RunEnd(
        ending=ending,
        seconds=trio.current_time() - run.began_at,
        first_event_seconds=None if first is None else first - run.began_at,
        stop_seconds=None if stopped_at is None else unwound_at - stopped_at,
        stop_scope="remote" if run.stopped_remotely else "local",
        cleanup=run.cleanup_state.result,
    )


def _log_end(run: Run, ending: Ending, failure: Failure | None) -> None:
    """Log how a run has ended, with the message that its client got."""
    logger.info(
        "run %s has ended: %s (%s), %.3f s after its request%s",
        run.run_id,
        ending.state.value,
        ending.cause.value,
        time.time() - run.created_at,
        f"; message to the client: {failure.message}" if failure and ending.state is RunState.ERROR else "",
    )
