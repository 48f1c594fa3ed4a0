"""The questions of the contract: the local backend has the answers, and each wrong answer is found."""

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import pytest
import trio

from trio_agentapp.abc import (
    MAX_INPUT,
    BaseInterruptBackend,
    Busy,
    Claim,
    Ended,
    Granted,
    InputAnswer,
    Lease,
    Place,
    QuestionBoard,
    Queued,
    QueueIsFull,
    Renewal,
    RunInbox,
    Signal,
    StopAnswer,
    StopOutcome,
    StopSignal,
)
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.lifecycle import Cause, Ending, RunRecord, RunState, SessionStatus
from trio_agentapp.testing import Question, UnrulyBackend, ask, check_interrupt_backend, interrupt_questions
from trio_agentapp.testing.conformance import offers

Make = Callable[[], AbstractAsyncContextManager[BaseInterruptBackend]]
QUESTIONS = interrupt_questions()
NAMES = {question.__name__: question for question in QUESTIONS}


def maker(kind: Callable[[], BaseInterruptBackend]) -> Make:
    @asynccontextmanager
    async def make() -> AsyncIterator[BaseInterruptBackend]:
        backend = kind()
        yield backend
        await backend.aclose()

    return make


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.__name__)
async def test_the_local_backend_answers(question: Question) -> None:
    await ask(maker(LocalInterruptBackend), question)


async def test_all_questions_on_a_virtual_clock(autojump_clock: trio.testing.MockClock) -> None:
    await check_interrupt_backend(maker(LocalInterruptBackend))


async def test_questions_may_share_one_server() -> None:
    server = LocalInterruptBackend()
    await check_interrupt_backend(maker(lambda: UnrulyBackend(server)))


# Backends that break one promise each. They say what they do; none looks at what is asked of it.


class WithoutTombstones(LocalInterruptBackend):
    def _leave_tombstone(self, key, run_id, user_id):
        return StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)


class TombstonesForAnybody(LocalInterruptBackend):
    def _leave_tombstone(self, key, run_id, user_id):
        return super()._leave_tombstone(None, run_id, None)


class TombstonesWithoutRunAlone(LocalInterruptBackend):
    async def request_stop(self, key, run_id=None, *, user_id=None):
        if key is None and run_id is not None and self._record(run_id) is None:
            return StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)
        return await super().request_stop(key, run_id, user_id=user_id)


class OneTombstoneForAllUsers(LocalInterruptBackend):
    def _leave_tombstone(self, key, run_id, user_id):
        for left in self._lone_tombstones.by_user.values():
            left.pop(run_id, None)
        return super()._leave_tombstone(key, run_id, user_id)


class TombstonesWithoutRecord(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        if self._take_tombstone(self._session(lease.key), lease):
            return Ended(RunState.STOPPED, "stopped_before_start")
        return await super().claim(lease)


class StoppedClaimsEndAnyRun(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        if lease.run_id in self._live and self._take_tombstone(self._session(lease.key), lease):
            live = self._live[lease.run_id]
            self._keep(attrs.evolve(live, key=lease.key, state=RunState.STOPPED, reason="stopped_before_start"))
        return await super().claim(lease)


class RunIdsOfAnybody(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        live = self._live.pop(lease.run_id, None) if self._sessions.get(lease.key) is None else None
        answer = await super().claim(lease)
        if live is not None:
            self._live[lease.run_id] = live
        return answer


class FailsToServe(LocalInterruptBackend):
    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        raise OSError("no such server")


class EqualTokens(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        self._last_token = 2**60 - 1
        return await super().claim(lease)


class ShrinkingTokens(LocalInterruptBackend):
    last = 2**60

    async def claim(self, lease: Lease) -> Claim:
        self.last -= 2
        self._last_token = self.last
        return await super().claim(lease)


class TwoOwners(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        answer = await super().claim(lease)
        return Granted(time.time_ns()) if isinstance(answer, Busy) else answer


class OwnerByChance(LocalInterruptBackend):
    """Looks, waits, and then takes: right as long as nobody comes between."""

    async def claim(self, lease: Lease) -> Claim:
        free = self._session(lease.key).lease is None
        answer = await super().claim(lease)
        return Granted(time.time_ns()) if free and isinstance(answer, Busy) else answer


class BusyNamesTheAsker(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        answer = await super().claim(lease)
        return Busy(lease.run_id, answer.retry_after) if isinstance(answer, Busy) else answer


class NonceIgnored(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        session = self._session(lease.key)
        if session.lease is not None and session.lease.run_id == lease.run_id:
            return Granted(session.lease.token)
        return await super().claim(lease)


class RetryIsBusy(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        session = self._session(lease.key)
        if session.lease is not None:
            return Busy(session.lease.run_id, 1.0)
        return await super().claim(lease)


class KeysJoined(LocalInterruptBackend):
    def _session(self, key: SessionKey):
        return super()._session(SessionKey(f"{key.user_id}:{key.session_id}", ""))


class EndedRunsStartAgain(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        record = self._record(lease.run_id)
        if record is not None and record.state is RunState.ERROR:
            del self._ended[lease.run_id]
        return await super().claim(lease)


class LastTerminalStateWins(LocalInterruptBackend):
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        record = await super().finish(lease, ending)
        self._ended.pop(lease.run_id, None)
        self._keep(record := attrs.evolve(record, state=ending.state, reason=ending.cause.value))
        return record


class AnyLeaseFrees(LocalInterruptBackend):
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        if (session := self._sessions.get(lease.key)) and session.lease:
            lease = attrs.evolve(session.lease)
        return await super().finish(lease, ending)


class AnyClaimOfTheRunFrees(LocalInterruptBackend):
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        if (session := self._sessions.get(lease.key)) and session.lease and session.lease.run_id == lease.run_id:
            lease = session.lease
        return await super().finish(lease, ending)


class AnyFinishWritesTheRecord(LocalInterruptBackend):
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        if (live := self._live.get(lease.run_id)) is not None and live.key == lease.key:
            self._keep(attrs.evolve(live, state=ending.state, reason=ending.cause.value))
        return await super().finish(lease, ending)


class TokenlessFinishIsIgnored(LocalInterruptBackend):
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        if not lease.token:
            return RunRecord(run_id=lease.run_id, key=lease.key, state=ending.state, reason=ending.cause.value)
        return await super().finish(lease, ending)


class FinishForgetsTheStop(LocalInterruptBackend):
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        if lease.run_id in self._live:
            self._live[lease.run_id] = attrs.evolve(self._live[lease.run_id], stop_requested=False)
        return await super().finish(lease, ending)


class FinishForgetsTheCleanup(LocalInterruptBackend):
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        return await super().finish(lease, Ending(cause=ending.cause, stop_requested=ending.stop_requested))


class SessionStaysBlocked(LocalInterruptBackend):
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        if ending.state is RunState.ERROR and lease.run_id in self._live:
            self._keep(record := attrs.evolve(self._live[lease.run_id], state=ending.state, reason="exception"))
            return record
        return await super().finish(lease, ending)


class StopIsNotRenewed(LocalInterruptBackend):
    def _renewal(self, lease: Lease) -> Renewal:
        return Renewal.LOST if super()._renewal(lease) is Renewal.LOST else Renewal.OK


class EveryRenewalIsFine(LocalInterruptBackend):
    def _renewal(self, lease: Lease) -> Renewal:
        session = self._sessions.get(lease.key)
        return Renewal.STOP if session is not None and session.stop_requested else Renewal.OK


class RenewalsOutOfOrder(LocalInterruptBackend):
    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        return sorted(await super().heartbeat(leases))


class StopIsKeptForTheNextRun(LocalInterruptBackend):
    async def request_stop(self, key, run_id=None, *, user_id=None):
        answer = await super().request_stop(key, run_id, user_id=user_id)
        if answer.outcome is StopOutcome.NOT_RUNNING and key is not None:
            self._waiting = {*getattr(self, "_waiting", ()), key}
        return answer

    async def claim(self, lease: Lease) -> Claim:
        answer = await super().claim(lease)
        if lease.key in getattr(self, "_waiting", ()):
            self._sessions[lease.key].stop_requested = True
        return answer


class StopOutlivesItsRun(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        last = self._known(lease.key)
        record = self._record(last.run_id or "") if last is not None else None
        answer = await super().claim(lease)
        if record is not None and record.state.terminal and record.stop_requested:
            self._sessions[lease.key].stop_requested = True
        return answer


class AnyRunOfTheSessionIsStopped(LocalInterruptBackend):
    async def request_stop(self, key, run_id=None, *, user_id=None):
        return await super().request_stop(key, None if key is not None else run_id, user_id=user_id)


class EveryEndedRunStopsItsSession(LocalInterruptBackend):
    async def request_stop(self, key, run_id=None, *, user_id=None):
        answer = await super().request_stop(key, run_id, user_id=user_id)
        if answer.outcome is StopOutcome.ENDED:
            self._stop_session(self._record(run_id).key)
        return answer


class AnybodyMayStop(LocalInterruptBackend):
    async def request_stop(self, key, run_id=None, *, user_id=None):
        known = run_id is not None and self._record(run_id) is not None
        return await super().request_stop(None if known else key, run_id, user_id=None if known else user_id)


class ForeignStopsAreToldMore(LocalInterruptBackend):
    async def request_stop(self, key, run_id=None, *, user_id=None):
        answer = await super().request_stop(key, run_id, user_id=user_id)
        record = self._record(run_id) if run_id is not None else None
        return answer if record is None else attrs.evolve(answer, node_id=record.node_id)


class SecondStopHasEnded(LocalInterruptBackend):
    async def request_stop(self, key, run_id=None, *, user_id=None):
        session = self._sessions.get(key) if key is not None else None
        if session is not None and session.stop_requested:
            return StopAnswer(outcome=StopOutcome.NOT_RUNNING)
        return await super().request_stop(key, run_id, user_id=user_id)


class NothingMayBeStopped(LocalInterruptBackend):
    async def request_stop(self, key, run_id=None, *, user_id=None):
        if key is None and run_id is None:
            return StopAnswer(outcome=StopOutcome.NOT_RUNNING)
        return await super().request_stop(key, run_id, user_id=user_id)


class StopFallsBetween(LocalInterruptBackend):
    """Looks for the run, waits, and only then leaves its tombstone."""

    async def request_stop(self, key, run_id=None, *, user_id=None):
        if run_id is not None and self._record(run_id) is None:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            return self._leave_tombstone(key, run_id, user_id)
        return await super().request_stop(key, run_id, user_id=user_id)


class StoppedIsNoLongerRunning(LocalInterruptBackend):
    async def status(self, key: SessionKey) -> SessionStatus:
        status = await super().status(key)
        session = self._sessions.get(key)
        stopping = session is not None and session.stop_requested
        return attrs.evolve(status, state=RunState.STOPPED) if stopping else status


class EndedIsStillRunning(LocalInterruptBackend):
    async def status(self, key: SessionKey) -> SessionStatus:
        status = await super().status(key)
        return attrs.evolve(status, state=RunState.RUNNING) if status.run_id else status


class UnknownSessionsFail(LocalInterruptBackend):
    async def status(self, key: SessionKey) -> SessionStatus:
        self._sessions[key]
        return await super().status(key)


class SignalsGoToAll(LocalInterruptBackend):
    def _stop_session(self, key: SessionKey) -> StopAnswer:
        answer = super()._stop_session(key)
        if answer.run_id is not None:
            for deliver in self._listeners.values():
                deliver(StopSignal(answer.run_id, self._sessions[key].lease.token))
        return answer


class SignalsWithoutToken(LocalInterruptBackend):
    async def listen(self, node_id: str, deliver: Callable[[Signal], None], **options) -> None:
        def without(signal: Signal) -> None:
            deliver(attrs.evolve(signal, token=0))

        await super().listen(node_id, without, **options)


class NoSignals(LocalInterruptBackend):
    async def listen(self, node_id: str, deliver: Callable[[Signal], None], **options) -> None:
        await super().listen(node_id, lambda signal: None, **options)


class FirstListenerStays(LocalInterruptBackend):
    async def listen(self, node_id, deliver, *, task_status=trio.TASK_STATUS_IGNORED) -> None:
        self._listeners.setdefault(node_id, deliver)
        task_status.started()
        await trio.sleep_forever()


class LateStopsAreSignalled(LocalInterruptBackend):
    async def request_stop(self, key, run_id=None, *, user_id=None):
        answer = await super().request_stop(key, run_id, user_id=user_id)
        session = self._sessions.get(key) if key is not None else None
        if answer.outcome is StopOutcome.ENDED and session is not None and session.lease is not None:
            self._listeners.get(session.lease.node_id, print)(StopSignal(session.run_id, session.lease.token))
        return answer


# What may be left out, and is not asked for then; and what was offered, and broken.


class NothingBeyond(LocalInterruptBackend):
    """Without a queue and without any capability."""

    def offers(self, capability: type[object]) -> bool:
        return False

    async def claim(self, lease: Lease) -> Claim:
        return await super().claim(attrs.evolve(lease, place=None))


class WithInput(LocalInterruptBackend, RunInbox, QuestionBoard):
    """Carries input and questions, as a backend of several nodes does."""

    def __init__(self) -> None:
        super().__init__()
        self.inboxes: defaultdict[str, list[bytes]] = defaultdict(list)
        self.forgotten: defaultdict[str, int] = defaultdict(int)

    async def send_input(self, key: SessionKey, run_id: str, message: bytes) -> InputAnswer:
        await trio.lowlevel.checkpoint()
        session = self._sessions.get(key)
        if session is None or session.lease is None or session.lease.run_id != run_id:
            return InputAnswer.GONE
        if len(self.inboxes[run_id]) >= MAX_INPUT:
            return InputAnswer.FULL
        self.inboxes[run_id].append(message)
        return InputAnswer.OK

    async def take_input(self, lease: Lease, received: int) -> Sequence[bytes]:
        await trio.lowlevel.checkpoint()
        if self._renewal(lease) is Renewal.LOST:
            return []
        del self.inboxes[lease.run_id][: received - self.forgotten[lease.run_id]]
        self.forgotten[lease.run_id] = received
        return list(self.inboxes[lease.run_id])

    async def post_questions(self, lease: Lease, questions: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._renewal(lease) is not Renewal.LOST:
            self._live[lease.run_id] = attrs.evolve(self._live[lease.run_id], questions=questions)


class LastComeFirstServed(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        answer = await super().claim(lease)
        self._session(lease.key).queue.sort(key=lambda entry: entry[1].run_id != lease.run_id)
        return answer


class NobodyIsFirst(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        return await super().claim(attrs.evolve(lease, place=lease.place and Place.LAST))


class ClaimsOvertake(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        session = self._session(lease.key)
        if session.lease is None and lease.place is None:
            session.queue.clear()
        return await super().claim(lease)


class PlacesOutliveTheirRuns(LocalInterruptBackend):
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        queue = list(self._session(lease.key).queue)
        record = await super().finish(lease, ending)
        self._session(lease.key).queue = queue
        return record


class WhoWaitsIsNotStopped(LocalInterruptBackend):
    def _take_tombstone(self, session, lease: Lease) -> bool:
        return lease.place is None and super()._take_tombstone(session, lease)


class StopsReachAllWhoWait(LocalInterruptBackend):
    def _stop_session(self, key: SessionKey) -> StopAnswer:
        for _, lease in self._session(key).queue:
            self._leave_tombstone(key, lease.run_id, None)
        return super()._stop_session(key)


class EndlessLine(LocalInterruptBackend):
    def _wait_in_line(self, session, lease: Lease, active: str) -> Claim:
        answer = super()._wait_in_line(session, lease, active)
        if isinstance(answer, QueueIsFull):
            session.queue.append((lease.place, lease))
            return Queued(active, len(session.queue) - 1)
        return answer


class AnyClaimHasThePlace(LocalInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        session = self._session(lease.key)
        session.queue = [(at, lease if each.run_id == lease.run_id else each) for at, each in session.queue]
        return await super().claim(lease)


class WhoWaitsIsUnknown(LocalInterruptBackend):
    async def run_status(self, run_id: str) -> RunRecord | None:
        record = await super().run_status(run_id)
        return None if record is not None and record.state is RunState.IDLE else record


class ListsOfEverybody(LocalInterruptBackend):
    async def list_runs(self, user_id, *, before=None, limit=100):
        return [*self._live.values(), *(record for _, record in self._ended.values())], None


class ListsRepeatThemselves(LocalInterruptBackend):
    async def list_runs(self, user_id, *, before=None, limit=100):
        records, more = await super().list_runs(user_id, before=before, limit=limit)
        if before is not None:
            records = [self._record(before), *records][:limit]
        return records, more


class ListsBreakOff(LocalInterruptBackend):
    async def list_runs(self, user_id, *, before=None, limit=100):
        records, _ = await super().list_runs(user_id, before=before, limit=limit)
        return records, None


class InputBackwards(WithInput):
    async def take_input(self, lease: Lease, received: int) -> Sequence[bytes]:
        return list(reversed(await super().take_input(lease, received)))


class InputOnce(WithInput):
    async def take_input(self, lease: Lease, received: int) -> Sequence[bytes]:
        taken = await super().take_input(lease, received)
        self.inboxes[lease.run_id].clear()
        return taken


class InputForAnybody(WithInput):
    async def take_input(self, lease: Lease, received: int) -> Sequence[bytes]:
        session = self._sessions[lease.key]
        return await super().take_input(session.lease or lease, received)


class EndlessInput(WithInput):
    async def send_input(self, key: SessionKey, run_id: str, message: bytes) -> InputAnswer:
        answer = await super().send_input(key, run_id, message)
        return InputAnswer.OK if answer is InputAnswer.FULL else answer


class InputForTheDead(WithInput):
    async def send_input(self, key: SessionKey, run_id: str, message: bytes) -> InputAnswer:
        await super().send_input(key, run_id, message)
        return InputAnswer.OK


class QuestionsFromAnybody(WithInput):
    async def post_questions(self, lease: Lease, questions: bytes) -> None:
        live = self._live.get(lease.run_id)
        await super().post_questions(lease if live is None else attrs.evolve(lease, token=live.token), questions)


class FirstQuestionsStay(WithInput):
    async def post_questions(self, lease: Lease, questions: bytes) -> None:
        if not self._live[lease.run_id].questions:
            await super().post_questions(lease, questions)


class QuestionsOutliveTheirRun(WithInput):
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        before = self._record(lease.run_id)
        record = await super().finish(lease, ending)
        if before is not None:
            self._live[lease.run_id] = attrs.evolve(record, questions=before.questions)
        return record


class LastValueWins(LocalInterruptBackend):
    async def pin(self, name: str, value: str) -> str:
        self._pins.pop(name, None)
        return await super().pin(name, value)


class OneKeyForAll(LocalInterruptBackend):
    async def pin(self, name: str, value: str) -> str:
        return await super().pin("the one", value)


class KeysStay(LocalInterruptBackend):
    async def unpin(self, name: str, value: str) -> None:
        await trio.lowlevel.checkpoint()


class AllKeysGo(LocalInterruptBackend):
    async def unpin(self, name: str, value: str) -> None:
        if self._pins.get(name, (0.0, ""))[1] == value:
            self._pins.clear()


class AnyValueGoes(LocalInterruptBackend):
    async def unpin(self, name: str, value: str) -> None:
        self._pins.pop(name, None)


INPUT = {
    "questions_are_in_the_record_of_a_running_run",
    "input_comes_in_order_and_can_be_taken_again",
    "input_is_its_owners_only",
    "input_is_bounded",
    "input_without_a_running_run_is_refused",
}


@pytest.mark.parametrize(
    ("kind", "not_offered"),
    [
        (NothingBeyond, {question.__name__ for question in offers.QUESTIONS}),
        (LocalInterruptBackend, INPUT),
        (WithInput, set()),
    ],
)
async def test_what_is_not_offered_is_reported(kind, not_offered, autojump_clock: trio.testing.MockClock) -> None:
    assert set(await check_interrupt_backend(maker(kind))) == not_offered


CAUGHT_BY = {
    WithoutTombstones: "a_run_stopped_before_its_start_never_starts",
    TombstonesForAnybody: "foreign_stops_before_the_start_have_no_effect",
    TombstonesWithoutRunAlone: "a_run_stopped_before_its_start_never_starts",
    OneTombstoneForAllUsers: "foreign_stops_do_not_replace_others",
    TombstonesWithoutRecord: "a_run_stopped_before_its_start_never_starts",
    StoppedClaimsEndAnyRun: "a_foreign_claim_that_was_stopped_ends_no_other_run",
    RunIdsOfAnybody: "a_run_id_belongs_to_one_session",
    FailsToServe: "an_unknown_session_is_idle",
    EqualTokens: "tokens_only_grow",
    ShrinkingTokens: "tokens_only_grow",
    TwoOwners: "busy_names_the_running_run",
    OwnerByChance: "one_of_many_claims_is_granted",
    BusyNamesTheAsker: "busy_names_the_running_run",
    NonceIgnored: "another_claim_of_the_same_run_is_refused",
    RetryIsBusy: "a_repeated_claim_gets_the_same_token",
    KeysJoined: "sessions_are_separate",
    EndedRunsStartAgain: "an_ended_run_cannot_be_claimed",
    LastTerminalStateWins: "the_first_terminal_state_stays",
    AnyLeaseFrees: "the_end_of_a_run_frees_its_session",
    AnyClaimOfTheRunFrees: "a_stale_token_frees_nothing",
    AnyFinishWritesTheRecord: "without_a_token_another_claim_frees_nothing",
    TokenlessFinishIsIgnored: "a_claim_that_was_given_up_ends_when_it_comes",
    FinishForgetsTheStop: "a_finish_remembers_the_stop",
    FinishForgetsTheCleanup: "a_record_keeps_the_ending",
    SessionStaysBlocked: "the_end_of_a_run_frees_its_session",
    StopIsNotRenewed: "a_stop_by_session_reaches_its_run",
    EveryRenewalIsFine: "renewals_report_ownership",
    RenewalsOutOfOrder: "renewals_report_ownership",
    StopIsKeptForTheNextRun: "a_stop_of_an_idle_session_stores_nothing",
    StopOutlivesItsRun: "a_stop_does_not_reach_the_next_run",
    AnyRunOfTheSessionIsStopped: "a_run_stopped_before_its_start_ends_beside_a_running_one",
    EveryEndedRunStopsItsSession: "a_stop_does_not_reach_the_next_run",
    AnybodyMayStop: "foreign_stops_touch_and_reveal_nothing",
    ForeignStopsAreToldMore: "foreign_stops_touch_and_reveal_nothing",
    SecondStopHasEnded: "a_second_stop_changes_nothing",
    NothingMayBeStopped: "a_stop_of_nothing_is_an_error",
    StopFallsBetween: "a_stop_is_never_lost_in_a_race",
    StoppedIsNoLongerRunning: "a_stop_by_session_reaches_its_run",
    EndedIsStillRunning: "a_session_runs_until_its_run_has_ended",
    UnknownSessionsFail: "an_unknown_session_is_idle",
    SignalsGoToAll: "a_stop_is_signalled_to_the_owner_only",
    SignalsWithoutToken: "a_stop_is_signalled_to_the_owner_only",
    NoSignals: "a_stop_is_signalled_to_the_owner_only",
    FirstListenerStays: "a_cancelled_listener_gets_nothing",
    LateStopsAreSignalled: "a_signal_names_the_run_that_runs",
    LastComeFirstServed: "queued_runs_are_granted_in_order",
    NobodyIsFirst: "queued_runs_are_granted_in_order",
    ClaimsOvertake: "no_claim_overtakes_queued_runs",
    PlacesOutliveTheirRuns: "an_end_gives_the_place_up",
    WhoWaitsIsNotStopped: "a_stop_ends_a_queued_run",
    StopsReachAllWhoWait: "a_stop_by_session_reaches_no_queued_run",
    EndlessLine: "the_queue_is_bounded",
    AnyClaimHasThePlace: "another_claim_of_a_queued_run_is_refused",
    WhoWaitsIsUnknown: "a_queued_run_is_idle",
    ListsOfEverybody: "runs_are_listed_by_user",
    ListsRepeatThemselves: "runs_are_listed_by_user",
    ListsBreakOff: "runs_are_listed_by_user",
    InputBackwards: "input_comes_in_order_and_can_be_taken_again",
    InputOnce: "input_comes_in_order_and_can_be_taken_again",
    InputForAnybody: "input_is_its_owners_only",
    EndlessInput: "input_is_bounded",
    InputForTheDead: "input_without_a_running_run_is_refused",
    QuestionsFromAnybody: "questions_are_in_the_record_of_a_running_run",
    FirstQuestionsStay: "questions_are_in_the_record_of_a_running_run",
    QuestionsOutliveTheirRun: "questions_are_in_the_record_of_a_running_run",
    LastValueWins: "the_first_value_of_a_key_stays",
    OneKeyForAll: "the_first_value_of_a_key_stays",
    KeysStay: "the_first_value_of_a_key_stays",
    AllKeysGo: "the_first_value_of_a_key_stays",
    AnyValueGoes: "the_first_value_of_a_key_stays",
}


@pytest.mark.parametrize(("kind", "name"), CAUGHT_BY.items(), ids=lambda value: getattr(value, "__name__", ""))
async def test_a_broken_promise_is_found(kind, name, autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(AssertionError, match=f"^{name}: "):
        await ask(maker(kind), NAMES[name])
    with pytest.raises(AssertionError):
        await check_interrupt_backend(maker(kind))


def test_every_question_can_be_answered_wrongly() -> None:
    spare = set(NAMES) - set(CAUGHT_BY.values())
    # These are caught too, by backends above that another question meets first.
    assert spare == {
        "without_a_token_the_same_claim_frees",
        "a_foreign_session_ends_nothing",
        "a_stop_by_run_reaches_it",
        "a_stop_that_races_with_the_end_reaches_no_other_run",
        "a_stop_without_a_listener_is_kept",
    }


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TokenlessFinishIsIgnored, "without_a_token_the_same_claim_frees"),
        (StopIsNotRenewed, "a_stop_by_run_reaches_it"),
        (StopIsNotRenewed, "a_stop_without_a_listener_is_kept"),
        (StopIsKeptForTheNextRun, "a_stop_that_races_with_the_end_reaches_no_other_run"),
    ],
)
async def test_a_broken_promise_is_found_by_other_questions(kind, name) -> None:
    with pytest.raises(AssertionError, match=f"^{name}: "):
        await ask(maker(kind), NAMES[name])


async def test_a_question_that_gets_no_answer_is_named(autojump_clock: trio.testing.MockClock) -> None:
    def slow() -> BaseInterruptBackend:
        backend = UnrulyBackend(LocalInterruptBackend())
        backend.hold("status")
        return backend

    with pytest.raises(AssertionError, match=r"^an_unknown_session_is_idle: no answer within 20 s"):
        await check_interrupt_backend(maker(slow))


async def test_an_error_of_the_backend_is_named() -> None:
    def failing() -> BaseInterruptBackend:
        backend = UnrulyBackend(LocalInterruptBackend())
        backend.fail("claim", RuntimeError("no such table"))
        return backend

    with pytest.raises(AssertionError, match=r"^tokens_only_grow: the backend raised .*no such table"):
        await ask(maker(failing), NAMES["tokens_only_grow"])


async def test_the_reason_of_an_ending_is_a_cause() -> None:
    """The questions spell reasons out, as they go over the wire."""
    assert {"exception", "claim_failed", "stopped_before_start", "shutdown"} <= set(Cause)
