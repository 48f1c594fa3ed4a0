"""Questions about what a backend may offer, or leave out: places in line, lists, input, keys.

One that leaves something out is not asked about it.
"""

from __future__ import annotations

from collections.abc import Awaitable

import attrs

from ...abc import (
    MAX_INPUT,
    MAX_QUEUED,
    BaseInterruptBackend,
    Busy,
    Claim,
    Ended,
    Granted,
    InputAnswer,
    Lease,
    Place,
    Queued,
    QueueIsFull,
    Renewal,
)
from ...errors import NotOffered
from ...protocol.ids import SessionKey, new_run_id
from ...protocol.lifecycle import RunRecord, RunState
from .parties import ENDED, FAILED, STOPPED, expect, fresh_lease, fresh_session, own

__all__ = ["QUESTIONS"]


async def _is_offered(call: Awaitable[object]) -> bool:
    try:
        await call
    except NotOffered:
        return False
    return True


# Places in line.


def _waiting(key: SessionKey, place: Place = Place.LAST) -> Lease:
    return attrs.evolve(fresh_lease(key), place=place)


async def _has_queues(backend: BaseInterruptBackend) -> bool:
    owner = await own(backend)
    lease = _waiting(owner.key)
    answer = await backend.claim(lease)
    expect(
        isinstance(answer, Queued | Busy) and answer.run_id == owner.run_id,
        f"a claim that would wait for a busy session got {answer!r}, which does not name the running run",
    )
    await backend.finish(lease, FAILED)
    return isinstance(answer, Queued)


async def _expect_turns(backend: BaseInterruptBackend, owner: Lease, line: list[Lease], what: str) -> None:
    """End `owner`, and then each of those in line: they are granted in this order, and nobody before."""
    for place, lease in enumerate(line):
        await backend.finish(owner, ENDED)
        for other in reversed(line[place + 1 :]):
            answer = await backend.claim(other)
            expect(
                isinstance(answer, Queued) and answer.run_id == lease.run_id,
                f"{what}: a run whose turn has not come got {answer!r}, and not Queued behind the next one",
            )
        owner = await own(backend, lease)


async def those_who_wait_come_in_order(backend: BaseInterruptBackend) -> None:
    if not await _has_queues(backend):
        return
    owner = await own(backend)
    one, two, three = (_waiting(owner.key) for _ in range(3))
    first, second = _waiting(owner.key, Place.FIRST), _waiting(owner.key, Place.FIRST)
    for lease, ahead in ((one, 0), (two, 1), (first, 0), (three, 3), (second, 1), (two, 3), (one, 2)):
        answer = await backend.claim(lease)
        expect(answer == Queued(owner.run_id, ahead), f"{answer!r} for a place with {ahead} others before it")
    await _expect_turns(backend, owner, [first, second, one, two, three], "runs wait in line")


async def nobody_overtakes_those_who_wait(backend: BaseInterruptBackend) -> None:
    if not await _has_queues(backend):
        return
    owner = await own(backend)
    waiting = _waiting(owner.key)
    await backend.claim(waiting)
    await backend.finish(owner, ENDED)
    answer = await backend.claim(fresh_lease(owner.key))
    expect(
        isinstance(answer, Busy) and answer.run_id == waiting.run_id,
        f"a claim without a place in a session that others wait for got {answer!r}",
    )
    await own(backend, waiting)


async def an_end_gives_the_place_up(backend: BaseInterruptBackend) -> None:
    if not await _has_queues(backend):
        return
    owner = await own(backend)
    one, two = _waiting(owner.key), _waiting(owner.key)
    for lease in (one, two):
        await backend.claim(lease)
    await backend.finish(one, STOPPED)
    answer = await backend.claim(two)
    expect(answer == Queued(owner.run_id, 0), f"the run before it has left the line, and its claim got {answer!r}")
    await _expect_turns(backend, owner, [two], "the run before it has left the line")
    answer = await backend.claim(one)
    expect(isinstance(answer, Ended), f"a run that has ended while it waited was claimed, and got {answer!r}")


async def a_stop_ends_a_run_that_waits(backend: BaseInterruptBackend) -> None:
    if not await _has_queues(backend):
        return
    owner = await own(backend)
    one, two = _waiting(owner.key), _waiting(owner.key)
    for lease in (one, two):
        await backend.claim(lease)
    await backend.request_stop(owner.key, one.run_id)
    answer = await backend.claim(one)
    expect(
        answer == Ended(RunState.STOPPED, "stopped_before_start"),
        f"a run was stopped while it waited, and its next claim got {answer!r}",
    )
    expect(await backend.heartbeat([owner]) == [Renewal.OK], "the stop of a run that waits reached the running one")
    await _expect_turns(backend, owner, [two], "the run before it was stopped")


async def a_stop_by_session_reaches_nobody_who_waits(backend: BaseInterruptBackend) -> None:
    if not await _has_queues(backend):
        return
    owner = await own(backend)
    waiting = _waiting(owner.key)
    await backend.claim(waiting)
    await backend.request_stop(owner.key)
    expect(await backend.heartbeat([owner]) == [Renewal.STOP], "a stop by session missed its run")
    await backend.finish(owner, STOPPED)
    next_owner = await own(backend, waiting)
    expect(await backend.heartbeat([next_owner]) == [Renewal.OK], "a stop by session reached the run that waited")


async def the_line_is_bounded(backend: BaseInterruptBackend) -> None:
    if not await _has_queues(backend):
        return
    owner = await own(backend)
    line = [_waiting(owner.key) for _ in range(MAX_QUEUED)]
    for ahead, lease in enumerate(line):
        answer: Claim = await backend.claim(lease)
        expect(answer == Queued(owner.run_id, ahead), f"{answer!r} for place {ahead} of {MAX_QUEUED}")
    for place in Place:
        answer = await backend.claim(_waiting(owner.key, place))
        expect(answer == QueueIsFull(owner.run_id), f"{MAX_QUEUED} runs waited, and one more got {answer!r}")
    answer = await backend.claim(line[-1])
    expect(isinstance(answer, Queued), f"a run that had a place in a full line claimed again, and got {answer!r}")


async def another_claim_of_a_run_that_waits_is_refused(backend: BaseInterruptBackend) -> None:
    if not await _has_queues(backend):
        return
    owner = await own(backend)
    waiting = _waiting(owner.key)
    await backend.claim(waiting)
    rival = attrs.evolve(fresh_lease(owner.key, run_id=waiting.run_id), place=Place.LAST)
    answer = await backend.claim(rival)
    expect(isinstance(answer, Busy), f"a second claim of a run that waits got {answer!r}")
    await backend.finish(rival, FAILED)
    await backend.finish(owner, ENDED)
    answer = await backend.claim(rival)
    expect(isinstance(answer, Busy), f"a second claim of a run that waits got its turn: {answer!r}")
    answer = await backend.claim(waiting)
    expect(isinstance(answer, Granted), f"another claim of its id has cost a run its place: it got {answer!r}")


async def a_run_that_waits_is_idle(backend: BaseInterruptBackend) -> None:
    if not await _has_queues(backend):
        return
    owner = await own(backend)
    waiting = _waiting(owner.key)
    await backend.claim(waiting)
    record = await backend.run_status(waiting.run_id)
    expect(
        record is not None and (record.state, record.key) == (RunState.IDLE, owner.key),
        f"the record of a run that waits is {record!r}",
    )
    status = await backend.status(owner.key)
    expect(status.run_id == owner.run_id, f"another run waits, and the session is said to run {status.run_id!r}")


# Lists.


async def runs_are_listed_by_user(backend: BaseInterruptBackend) -> None:
    key = fresh_session()
    if not await _is_offered(backend.list_runs(key.user_id)):
        return
    mine = [await own(backend, fresh_lease(SessionKey(key.user_id, f"{key.session_id}{n}"))) for n in range(7)]
    theirs = await own(backend)
    await backend.finish(mine[0], ENDED)
    never = fresh_lease(key)
    await backend.request_stop(key, never.run_id)
    await backend.claim(never)
    refused = fresh_lease(mine[1].key)
    await backend.claim(refused)
    for limit in (2, 7, 100):
        found: list[RunRecord] = []
        before = None
        while True:
            records, before = await backend.list_runs(key.user_id, before=before, limit=limit)
            expect(len(records) <= limit, f"{len(records)} runs were listed, and at most {limit} asked for")
            found += records
            if before is None:
                break
        names = [record.run_id for record in found]
        expect(len(set(names)) == len(names), f"a list in parts of {limit} names a run twice")
        expect(theirs.run_id not in names, "the list of one user's runs names another's")
        expect(not {never.run_id, refused.run_id} & set(names), "runs that never started are listed")
        expect(set(names) == {lease.run_id for lease in mine}, f"a list in parts of {limit} leaves runs out")
    states = {record.run_id: record.state for record in found}
    expect(states[mine[0].run_id] is RunState.FINISHED, "a run that has ended is listed as one that has not")
    expect(states[mine[1].run_id] is RunState.RUNNING, "a run that runs is listed as one that does not")
    expect((await backend.list_runs(fresh_session().user_id))[0] in ([], ()), "an unknown user has runs")


# Input.


async def input_comes_in_order_and_as_often_as_asked(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    if not await _is_offered(backend.send_input(owner.key, owner.run_id, b"0")):
        return
    for number in (1, 2):
        answer = await backend.send_input(owner.key, owner.run_id, b"%d" % number)
        expect(answer is InputAnswer.OK, f"a message for a running run got {answer!r}")
    for received, expected in ((0, [b"0", b"1", b"2"]), (0, [b"0", b"1", b"2"]), (2, [b"2"]), (2, [b"2"]), (3, [])):
        taken = list(await backend.take_input(owner, received))
        expect(taken == expected, f"of three messages, {received} of them received, {taken!r} were taken")
    await backend.send_input(owner.key, owner.run_id, b"3")
    taken = list(await backend.take_input(owner, 3))
    expect(taken == [b"3"], f"the fourth message came as {taken!r}")


async def input_is_its_owners_only(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    if not await _is_offered(backend.send_input(owner.key, owner.run_id, b"0")):
        return
    for stranger in (attrs.evolve(owner, token=owner.token - 1), attrs.evolve(owner, run_id=new_run_id())):
        taken = list(await backend.take_input(stranger, 0))
        expect(taken == [], f"a message was handed to another than the owner: {taken!r}")
    expect(list(await backend.take_input(owner, 0)) == [b"0"], "a message is gone after another asked for it")


async def input_is_bounded(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    if not await _is_offered(backend.send_input(owner.key, owner.run_id, b"0")):
        return
    answers = [await backend.send_input(owner.key, owner.run_id, b"x") for _ in range(MAX_INPUT)]
    expect(set(answers[:-1]) == {InputAnswer.OK}, f"fewer than {MAX_INPUT} messages may wait for a run")
    expect(answers[-1] is InputAnswer.FULL, f"{MAX_INPUT} messages waited, and one more got {answers[-1]!r}")
    await backend.take_input(owner, MAX_INPUT)
    answer = await backend.send_input(owner.key, owner.run_id, b"x")
    expect(answer is InputAnswer.OK, f"all messages were received, and the next one got {answer!r}")


async def input_for_nobody_is_refused(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    if not await _is_offered(backend.send_input(owner.key, owner.run_id, b"0")):
        return
    await backend.finish(owner, ENDED)
    for run_id in (owner.run_id, new_run_id()):
        answer = await backend.send_input(owner.key, run_id, b"0")
        expect(answer is InputAnswer.GONE, f"a message for a run that does not run got {answer!r}")
    later = await own(backend, fresh_lease(owner.key))
    expect(list(await backend.take_input(later, 0)) == [], "a message reached a later run of its session")


# Keys.


async def the_first_value_of_a_key_stays(backend: BaseInterruptBackend) -> None:
    name, other = new_run_id(), new_run_id()
    if not await _is_offered(backend.pin(name, "first value, with spaces: ü")):
        return
    kept = await backend.pin(name, "second")
    expect(kept == "first value, with spaces: ü", f"a name was given a second value, and then had {kept!r}")
    kept = await backend.pin(other, "other")
    expect(kept == "other", f"another name had {kept!r}")
    await backend.unpin(name, "second")
    kept = await backend.pin(name, "second")
    expect(kept == "first value, with spaces: ü", f"a value that a name had not was forgotten: it has {kept!r}")
    await backend.unpin(name, kept)
    kept = await backend.pin(name, "third")
    expect(kept == "third", f"a name was forgotten, and then had {kept!r}")
    kept = await backend.pin(other, "more")
    expect(kept == "other", "one name was forgotten, and another one with it")
    await backend.unpin(new_run_id(), "value")


QUESTIONS = (
    those_who_wait_come_in_order,
    nobody_overtakes_those_who_wait,
    an_end_gives_the_place_up,
    a_stop_ends_a_run_that_waits,
    a_stop_by_session_reaches_nobody_who_waits,
    the_line_is_bounded,
    another_claim_of_a_run_that_waits_is_refused,
    a_run_that_waits_is_idle,
    runs_are_listed_by_user,
    input_comes_in_order_and_as_often_as_asked,
    input_is_its_owners_only,
    input_is_bounded,
    input_for_nobody_is_refused,
    the_first_value_of_a_key_stays,
)
