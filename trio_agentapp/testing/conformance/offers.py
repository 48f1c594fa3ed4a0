"""Questions about optional parts: the queue, and the capabilities of `abc/capabilities.py`.

A question about a part that the backend does not offer is not applicable, and is reported as such.
"""

from __future__ import annotations

import attrs

from ...abc import (
    MAX_INPUT,
    MAX_QUEUED,
    BaseInterruptBackend,
    Busy,
    Claim,
    Ended,
    Granted,
    IdempotencyKeys,
    InputAnswer,
    Lease,
    Place,
    QuestionBoard,
    Queued,
    QueueIsFull,
    Renewal,
    RunInbox,
    RunListing,
)
from ...protocol.ids import SessionKey, new_run_id
from ...protocol.lifecycle import RunRecord, RunState
from .asking import NotApplicable, expect, offered, questions_in
from .parties import ENDED, FAILED, STOPPED, fresh_lease, fresh_session, own

__all__ = ["QUESTIONS"]


# The queue.


def _waiting(key: SessionKey, place: Place = Place.LAST) -> Lease:
    return attrs.evolve(fresh_lease(key), place=place)


async def _queue(backend: BaseInterruptBackend, length: int) -> tuple[Lease, list[Lease]]:
    """Return the owner of a session and `length` runs in its queue."""
    owner = await own(backend)
    lease = _waiting(owner.key)
    answer = await backend.claim(lease)
    expect(
        isinstance(answer, Queued | Busy) and answer.run_id == owner.run_id,
        f"a claim that would wait for a busy session got {answer!r}, which does not name the running run",
    )
    await backend.finish(lease, FAILED)
    if not isinstance(answer, Queued):
        raise NotApplicable
    queue = [_waiting(owner.key) for _ in range(length)]
    for lease in queue:
        await backend.claim(lease)
    return owner, queue


async def _expect_turns(backend: BaseInterruptBackend, owner: Lease, queue: list[Lease], what: str) -> None:
    """End `owner`, and then each queued run. They must be granted in this order, and none before its turn."""
    for place, lease in enumerate(queue):
        await backend.finish(owner, ENDED)
        for other in reversed(queue[place + 1 :]):
            answer = await backend.claim(other)
            expect(
                isinstance(answer, Queued) and answer.run_id == lease.run_id,
                f"{what}: a run whose turn has not come got {answer!r}, and not Queued behind the next one",
            )
        owner = await own(backend, lease)


async def queued_runs_are_granted_in_order(backend: BaseInterruptBackend) -> None:
    owner, _ = await _queue(backend, 0)
    one, two, three = (_waiting(owner.key) for _ in range(3))
    first, second = _waiting(owner.key, Place.FIRST), _waiting(owner.key, Place.FIRST)
    for lease, ahead in ((one, 0), (two, 1), (first, 0), (three, 3), (second, 1), (two, 3), (one, 2)):
        answer = await backend.claim(lease)
        expect(answer == Queued(owner.run_id, ahead), f"{answer!r} for a place with {ahead} others before it")
    await _expect_turns(backend, owner, [first, second, one, two, three], "runs are queued")


async def no_claim_overtakes_queued_runs(backend: BaseInterruptBackend) -> None:
    owner, [queued] = await _queue(backend, 1)
    await backend.finish(owner, ENDED)
    answer = await backend.claim(fresh_lease(owner.key))
    expect(
        isinstance(answer, Busy) and answer.run_id == queued.run_id,
        f"a claim without a place in a session with queued runs got {answer!r}",
    )
    await own(backend, queued)


async def an_end_gives_the_place_up(backend: BaseInterruptBackend) -> None:
    owner, [one, two] = await _queue(backend, 2)
    await backend.finish(one, STOPPED)
    answer = await backend.claim(two)
    expect(answer == Queued(owner.run_id, 0), f"the run before it has left the queue, and its claim got {answer!r}")
    await _expect_turns(backend, owner, [two], "the run before it has left the queue")
    answer = await backend.claim(one)
    expect(isinstance(answer, Ended), f"a run that has ended while it was queued was claimed, and got {answer!r}")


async def a_stop_ends_a_queued_run(backend: BaseInterruptBackend) -> None:
    owner, [one, two] = await _queue(backend, 2)
    await backend.request_stop(owner.key, one.run_id)
    answer = await backend.claim(one)
    expect(
        answer == Ended(RunState.STOPPED, "stopped_before_start"),
        f"a run was stopped while it was queued, and its next claim got {answer!r}",
    )
    expect(await backend.heartbeat([owner]) == [Renewal.OK], "the stop of a queued run reached the running one")
    await _expect_turns(backend, owner, [two], "the run before it was stopped")


async def a_stop_by_session_reaches_no_queued_run(backend: BaseInterruptBackend) -> None:
    owner, [queued] = await _queue(backend, 1)
    await backend.request_stop(owner.key)
    expect(await backend.heartbeat([owner]) == [Renewal.STOP], "a stop by session missed its run")
    await backend.finish(owner, STOPPED)
    next_owner = await own(backend, queued)
    expect(await backend.heartbeat([next_owner]) == [Renewal.OK], "a stop by session reached a queued run")


async def the_queue_is_bounded(backend: BaseInterruptBackend) -> None:
    owner, _ = await _queue(backend, 0)
    queue = [_waiting(owner.key) for _ in range(MAX_QUEUED)]
    for ahead, lease in enumerate(queue):
        answer: Claim = await backend.claim(lease)
        expect(answer == Queued(owner.run_id, ahead), f"{answer!r} for place {ahead} of {MAX_QUEUED}")
    for place in Place:
        answer = await backend.claim(_waiting(owner.key, place))
        expect(answer == QueueIsFull(owner.run_id), f"{MAX_QUEUED} runs were queued, and one more got {answer!r}")
    answer = await backend.claim(queue[-1])
    expect(isinstance(answer, Queued), f"a run that had a place in a full queue claimed again, and got {answer!r}")


async def another_claim_of_a_queued_run_is_refused(backend: BaseInterruptBackend) -> None:
    owner, [queued] = await _queue(backend, 1)
    rival = attrs.evolve(fresh_lease(owner.key, run_id=queued.run_id), place=Place.LAST)
    answer = await backend.claim(rival)
    expect(isinstance(answer, Busy), f"a second claim of a queued run got {answer!r}")
    await backend.finish(rival, FAILED)
    await backend.finish(owner, ENDED)
    answer = await backend.claim(rival)
    expect(isinstance(answer, Busy), f"a second claim of a queued run got its turn: {answer!r}")
    answer = await backend.claim(queued)
    expect(isinstance(answer, Granted), f"another claim of its id has cost a run its place: it got {answer!r}")


async def a_queued_run_is_idle(backend: BaseInterruptBackend) -> None:
    owner, [queued] = await _queue(backend, 1)
    record = await backend.run_status(queued.run_id)
    expect(
        record is not None and (record.state, record.key) == (RunState.IDLE, owner.key),
        f"the record of a queued run is {record!r}",
    )
    status = await backend.status(owner.key)
    expect(status.run_id == owner.run_id, f"a run is queued, and the session is said to run {status.run_id!r}")


# RunListing.


async def runs_are_listed_by_user(backend: BaseInterruptBackend) -> None:
    listing = offered(RunListing.of(backend))
    key = fresh_session()
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
            records, before = await listing.list_runs(key.user_id, before=before, limit=limit)
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
    expect(states[mine[1].run_id] is RunState.RUNNING, "a running run is listed as one that is not")
    expect((await listing.list_runs(fresh_session().user_id))[0] in ([], ()), "an unknown user has runs")


# RunInbox.


async def _inbox_with_a_message(backend: BaseInterruptBackend) -> tuple[Lease, RunInbox]:
    inbox = offered(RunInbox.of(backend))
    owner = await own(backend)
    await inbox.send_input(owner.key, owner.run_id, b"0")
    return owner, inbox


async def input_comes_in_order_and_can_be_taken_again(backend: BaseInterruptBackend) -> None:
    owner, inbox = await _inbox_with_a_message(backend)
    for number in (1, 2):
        answer = await inbox.send_input(owner.key, owner.run_id, b"%d" % number)
        expect(answer is InputAnswer.OK, f"a message for a running run got {answer!r}")
    for received, expected in ((0, [b"0", b"1", b"2"]), (0, [b"0", b"1", b"2"]), (2, [b"2"]), (2, [b"2"]), (3, [])):
        taken = list(await inbox.take_input(owner, received))
        expect(taken == expected, f"of three messages, {received} of them received, {taken!r} were taken")
    await inbox.send_input(owner.key, owner.run_id, b"3")
    taken = list(await inbox.take_input(owner, 3))
    expect(taken == [b"3"], f"the fourth message came as {taken!r}")


async def input_is_its_owners_only(backend: BaseInterruptBackend) -> None:
    owner, inbox = await _inbox_with_a_message(backend)
    for stranger in (attrs.evolve(owner, token=owner.token + 1), attrs.evolve(owner, run_id=new_run_id())):
        taken = list(await inbox.take_input(stranger, 0))
        expect(taken == [], f"a lease that does not own the session got a message: {taken!r}")
    expect(list(await inbox.take_input(owner, 0)) == [b"0"], "a message is gone after another lease asked for it")


async def input_is_bounded(backend: BaseInterruptBackend) -> None:
    owner, inbox = await _inbox_with_a_message(backend)
    answers = [await inbox.send_input(owner.key, owner.run_id, b"x") for _ in range(MAX_INPUT)]
    expect(set(answers[:-1]) == {InputAnswer.OK}, f"fewer than {MAX_INPUT} messages may wait for a run")
    expect(answers[-1] is InputAnswer.FULL, f"{MAX_INPUT} messages waited, and one more got {answers[-1]!r}")
    await inbox.take_input(owner, MAX_INPUT)
    answer = await inbox.send_input(owner.key, owner.run_id, b"x")
    expect(answer is InputAnswer.OK, f"all messages were received, and the next one got {answer!r}")


async def input_without_a_running_run_is_refused(backend: BaseInterruptBackend) -> None:
    owner, inbox = await _inbox_with_a_message(backend)
    await backend.finish(owner, ENDED)
    for run_id in (owner.run_id, new_run_id()):
        answer = await inbox.send_input(owner.key, run_id, b"0")
        expect(answer is InputAnswer.GONE, f"a message for a run that is not running got {answer!r}")
    later = await own(backend, fresh_lease(owner.key))
    expect(list(await inbox.take_input(later, 0)) == [], "a message reached a later run of its session")


# QuestionBoard.


async def questions_are_in_the_record_of_a_running_run(backend: BaseInterruptBackend) -> None:
    board = offered(QuestionBoard.of(backend))
    owner = await own(backend)

    async def shown() -> bytes | None:
        record = await backend.run_status(owner.run_id)
        return None if record is None else record.questions

    expect(await shown() == b"", "a run that has asked nothing has questions")
    for questions in (b'[{"id":"1","question":"\xc3\xbc?"}]', b'[{"id":"2"}]', b"", b'[{"id":"3"}]'):
        await board.post_questions(owner, questions)
        expect(await shown() == questions, f"{questions!r} was posted, and the record has {await shown()!r}")
    for stranger in (attrs.evolve(owner, token=owner.token + 1), attrs.evolve(owner, run_id=new_run_id())):
        await board.post_questions(stranger, b'[{"id":"4"}]')
    expect(
        await shown() == b'[{"id":"3"}]', "a lease that does not own the session changed the questions of its run"
    )
    if (listing := RunListing.of(backend)) is not None:
        [record], _ = await listing.list_runs(owner.key.user_id)
        expect(record.questions == b'[{"id":"3"}]', f"the list of runs has the questions {record.questions!r}")
    await backend.finish(owner, ENDED)
    expect(await shown() == b"", "a run that has ended has open questions")
    await board.post_questions(owner, b'[{"id":"5"}]')
    expect(await shown() == b"", "questions were posted for a run that has ended")


# IdempotencyKeys.


async def the_first_value_of_a_key_stays(backend: BaseInterruptBackend) -> None:
    keys = offered(IdempotencyKeys.of(backend))
    name, other = new_run_id(), new_run_id()
    first = "first value, with spaces: ü"
    for value in (first, "second"):
        kept = await keys.pin(name, value)
        expect(kept == first, f"{first!r} and then {value!r} were pinned, and the value was {kept!r}")
    kept = await keys.pin(other, "other")
    expect(kept == "other", f"another name had {kept!r}")
    await keys.unpin(name, "second")
    kept = await keys.pin(name, "second")
    expect(kept == first, f"a value was unpinned that the name did not have; then it had {kept!r}")
    await keys.unpin(name, kept)
    kept = await keys.pin(name, "third")
    expect(kept == "third", f"a name was unpinned, and then had {kept!r}")
    kept = await keys.pin(other, "more")
    expect(kept == "other", "one name was unpinned, and another one with it")
    await keys.unpin(new_run_id(), "value")


QUESTIONS = questions_in(globals())
