"""Questions about stops: each affects only the run it was accepted for."""

from __future__ import annotations

import trio

from ...abc import BaseInterruptBackend, Claim, Ended, Granted, Lease, Renewal, StopAnswer, StopOutcome
from ...protocol.ids import SessionKey, new_run_id
from ...protocol.lifecycle import RunState
from .asking import expect, questions_in
from .parties import ENDED, STOPPED, fresh_lease, fresh_session, own

__all__ = ["QUESTIONS"]

RACES = 20


async def a_stop_of_nothing_is_an_error(backend: BaseInterruptBackend) -> None:
    try:
        answer = await backend.request_stop(None)
    except ValueError:
        return
    raise AssertionError(f"a stop that names neither session nor run was answered with {answer!r}")


async def a_stop_by_session_reaches_its_run(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    answer = await backend.request_stop(owner.key)
    await _is_stopping(backend, owner, answer)


async def a_stop_by_run_reaches_it(backend: BaseInterruptBackend) -> None:
    for how in ("session and run", "run", "run and user"):
        owner = await own(backend)
        key = owner.key if how == "session and run" else None
        user_id = owner.key.user_id if how == "run and user" else None
        answer = await backend.request_stop(key, owner.run_id, user_id=user_id)
        await _is_stopping(backend, owner, answer)


async def a_second_stop_changes_nothing(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    first = await backend.request_stop(owner.key)
    for second in (await backend.request_stop(owner.key), await backend.request_stop(None, owner.run_id)):
        expect(second == first, f"the first stop was answered with {first!r}, the second with {second!r}")
    await _is_stopping(backend, owner, first)
    record = await backend.finish(owner, STOPPED)
    expect(record.state is RunState.STOPPED, f"a run that was stopped twice ended as {record.state.value}")


async def a_finish_remembers_the_stop(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    await backend.request_stop(owner.key)
    record = await backend.finish(owner, ENDED)
    expect(record.state is RunState.FINISHED, f"a run whose body ended before the stop was {record.state.value}")
    expect(record.stop_requested, "a stop was accepted, and the record of its run does not say so")


async def a_stop_of_an_idle_session_stores_nothing(backend: BaseInterruptBackend) -> None:
    key = fresh_session()
    answer = await backend.request_stop(key)
    expect(
        answer == StopAnswer(outcome=StopOutcome.NOT_RUNNING),
        f"the stop of a session that has never run was answered with {answer!r}",
    )
    owner = await own(backend, fresh_lease(key))
    await _runs_on(backend, owner, "a stop of its session before it started")
    await backend.finish(owner, ENDED)
    answer = await backend.request_stop(key)
    expect(
        answer.outcome is StopOutcome.NOT_RUNNING and answer.state is RunState.FINISHED,
        f"the stop of a session whose run had finished was answered with {answer!r}",
    )
    owner = await own(backend, fresh_lease(key))
    await _runs_on(backend, owner, "a stop of its session before it started")


async def a_stop_does_not_reach_the_next_run(backend: BaseInterruptBackend) -> None:
    first = await own(backend)
    await backend.request_stop(first.key)
    await backend.finish(first, STOPPED)
    second = await own(backend, fresh_lease(first.key))
    await _runs_on(backend, second, "the stop of the run before it")
    for key in (first.key, None):
        answer = await backend.request_stop(key, first.run_id)
        expect(
            answer.outcome is StopOutcome.ENDED and answer.state is RunState.STOPPED,
            f"the stop of an ended run was answered with {answer!r}",
        )
    await _runs_on(backend, second, "a late stop of the run before it")


async def a_run_stopped_before_its_start_never_starts(backend: BaseInterruptBackend) -> None:
    for how in ("session and run", "run", "run and user"):
        lease = fresh_lease()
        key = lease.key if how == "session and run" else None
        user_id = lease.key.user_id if how == "run and user" else None
        answer = await backend.request_stop(key, lease.run_id, user_id=user_id)
        expect(answer.outcome is StopOutcome.PENDING, f"a stop by {how} before its start got {answer!r}")
        await _ends_at_its_claim(backend, lease, f"a stop by {how}")
        await own(backend, fresh_lease(lease.key))


async def a_run_stopped_before_its_start_ends_beside_a_running_one(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    late = fresh_lease(owner.key)
    await backend.request_stop(owner.key, late.run_id)
    await _ends_at_its_claim(backend, late, "a stop while another run ran")
    await _runs_on(backend, owner, "the stop of another run of its session")


async def foreign_stops_before_the_start_have_no_effect(backend: BaseInterruptBackend) -> None:
    for key, user_id in ((fresh_session(), None), (None, "another user")):
        lease = fresh_lease()
        answer = await backend.request_stop(key, lease.run_id, user_id=user_id)
        expect(answer.outcome is StopOutcome.PENDING, f"the stop of an unknown run was answered with {answer!r}")
        foreign = "a stop that names this run id, and another session or user"
        owner = await own(backend, lease, after=foreign)
        await _runs_on(backend, owner, foreign)


async def a_foreign_claim_that_was_stopped_ends_no_other_run(backend: BaseInterruptBackend) -> None:
    lease = fresh_lease()
    stranger = fresh_lease(run_id=lease.run_id)
    await backend.request_stop(stranger.key, stranger.run_id)
    owner = await own(backend, lease, after="a stop of the same run id in another session")
    await backend.claim(stranger)
    await _runs_on(backend, owner, "a stopped claim of the same run id in another session")
    record = await backend.run_status(owner.run_id)
    expect(
        record is not None and record.key == owner.key and record.state is RunState.RUNNING,
        f"after a stopped claim of its id in another session the record of a running run is {record!r}",
    )
    await _is_stopping(backend, owner, await backend.request_stop(owner.key))


async def foreign_stops_do_not_replace_others(backend: BaseInterruptBackend) -> None:
    for foreign_first in (False, True):
        lease = fresh_lease()
        users = [lease.key.user_id, "another user"]
        for user_id in reversed(users) if foreign_first else users:
            await backend.request_stop(None, lease.run_id, user_id=user_id)
        await _ends_at_its_claim(backend, lease, "a stop by its user, with one by another user beside it,")


async def foreign_stops_touch_and_reveal_nothing(backend: BaseInterruptBackend) -> None:
    live, ended = await own(backend), await own(backend)
    await backend.finish(ended, ENDED)
    unknown = await backend.request_stop(fresh_session(), new_run_id())
    revealed = (unknown.outcome, unknown.state, unknown.node_id)
    for lease in (live, ended):
        strangers: list[tuple[SessionKey | None, str | None]] = [
            (fresh_session(), None),
            (SessionKey(lease.key.user_id, "another"), None),
            (None, "another user"),
        ]
        for key, user_id in strangers:
            answer = await backend.request_stop(key, lease.run_id, user_id=user_id)
            expect(
                (answer.outcome, answer.state, answer.node_id) == revealed,
                f"a foreign stop was answered with {answer!r}, and that of an unknown run with {unknown!r}",
            )
    await _runs_on(backend, live, "a stop that names another session or user")


async def a_stop_is_never_lost_in_a_race(backend: BaseInterruptBackend) -> None:
    """A stop by run id that races with its run's claim: the claim or the next renewal reports the stop."""
    for _ in range(RACES):
        lease = fresh_lease()
        answers: list[Claim] = []

        async def claim(lease: Lease = lease, answers: list[Claim] = answers) -> None:
            answers.append(await backend.claim(lease))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(claim)
            nursery.start_soon(backend.request_stop, lease.key, lease.run_id)
        match answers[0]:
            case Ended(RunState.STOPPED, _):
                continue
            case Granted(token):
                owner = Lease(
                    key=lease.key, run_id=lease.run_id, node_id=lease.node_id, nonce=lease.nonce, token=token
                )
                renewal = await backend.heartbeat([owner])
                expect(renewal == [Renewal.STOP], "a stop that raced with its run's claim was lost")
            case other:
                raise AssertionError(f"a claim that raced with its run's stop was answered with {other!r}")


async def a_stop_that_races_with_the_end_reaches_no_other_run(backend: BaseInterruptBackend) -> None:
    for _ in range(RACES):
        first = await own(backend)
        answers: list[StopAnswer] = []

        async def stop(key: SessionKey = first.key, answers: list[StopAnswer] = answers) -> None:
            answers.append(await backend.request_stop(key))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.finish, first, ENDED)
            nursery.start_soon(stop)
        second = await own(backend, fresh_lease(first.key))
        await _runs_on(backend, second, f"a stop that raced with the end of the run before it ({answers[0]!r})")


async def _is_stopping(backend: BaseInterruptBackend, owner: Lease, answer: StopAnswer) -> None:
    accepted = StopAnswer(
        outcome=StopOutcome.ACCEPTED, run_id=owner.run_id, state=RunState.RUNNING, node_id=owner.node_id
    )
    expect(answer == accepted, f"the stop of a running run was answered with {answer!r}, not {accepted!r}")
    renewal = await backend.heartbeat([owner])
    expect(renewal == [Renewal.STOP], f"the owner of a stopped run renewed its lease and got {renewal!r}")
    status = await backend.status(owner.key)
    expect(status.state is RunState.RUNNING, f"a run is being stopped, and its session is {status.state.value}")
    record = await backend.run_status(owner.run_id)
    expect(
        record is not None and record.state is RunState.RUNNING and record.stop_requested,
        f"the record of a run that is being stopped is {record!r}",
    )


async def _runs_on(backend: BaseInterruptBackend, owner: Lease, what: str) -> None:
    renewal = await backend.heartbeat([owner])
    expect(renewal == [Renewal.OK], f"{what} reached a run it was not meant for: its renewal got {renewal!r}")


async def _ends_at_its_claim(backend: BaseInterruptBackend, lease: Lease, what: str) -> None:
    for attempt in ("its claim", "its repeated claim"):
        answer = await backend.claim(lease)
        expect(
            isinstance(answer, Ended)
            and answer.state is RunState.STOPPED
            and answer.reason == "stopped_before_start",
            f"{what} came before the run, and {attempt} was answered with {answer!r}",
        )
    record = await backend.run_status(lease.run_id)
    expect(
        record is not None and record.state is RunState.STOPPED and record.reason == "stopped_before_start",
        f"the record of a run that was stopped before its start is {record!r}",
    )
    status = await backend.status(lease.key)
    expect(status.run_id != lease.run_id or status.state is not RunState.RUNNING, "a stopped run took its session")


QUESTIONS = questions_in(globals())
