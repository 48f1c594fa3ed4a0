"""Questions about claims, renewals and the state of sessions."""

from __future__ import annotations

import attrs
import trio

from ...abc import BaseInterruptBackend, Busy, Claim, Ended, Granted, Lease, Renewal, Taken
from ...protocol.ids import SessionKey, new_run_id, new_session_id
from ...protocol.lifecycle import RunState, SessionStatus
from .asking import expect, present, questions_in
from .parties import ENDED, FAILED, STOPPED, fresh_lease, fresh_session, own

__all__ = ["QUESTIONS"]

RIVALS = 40


async def an_unknown_session_is_idle(backend: BaseInterruptBackend) -> None:
    status = await backend.status(fresh_session())
    expect(status == SessionStatus(), f"the status of an unused session is {status!r}")
    record = await backend.run_status(new_run_id())
    expect(record is None, f"the record of an unknown run is {record!r}")


async def a_session_runs_until_its_run_has_ended(backend: BaseInterruptBackend) -> None:
    lease = await own(backend)
    status = await backend.status(lease.key)
    expect(
        (status.state, status.run_id, status.node_id) == (RunState.RUNNING, lease.run_id, lease.node_id),
        f"while its run runs, a session's status is {status!r}",
    )
    record = present(await backend.run_status(lease.run_id), "a running run has no record")
    expect(
        (record.state, record.key, record.token, record.node_id)
        == (RunState.RUNNING, lease.key, lease.token, lease.node_id),
        f"the record of a running run is {record!r}",
    )
    await backend.finish(lease, ENDED)
    status = await backend.status(lease.key)
    expect(
        (status.state, status.run_id) == (RunState.FINISHED, lease.run_id),
        f"after the end of its run, a session's status is {status!r}",
    )


async def busy_names_the_running_run(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    answer = await backend.claim(fresh_lease(owner.key))
    expect(isinstance(answer, Busy), f"a second run was answered with {answer!r} while the first ran")
    assert isinstance(answer, Busy)  # noqa: S101  for the type checker
    expect(answer.run_id == owner.run_id, f"Busy names {answer.run_id!r} and not the running run")
    expect(answer.retry_after >= 0, f"Busy says to try again in {answer.retry_after!r} seconds")


async def one_of_many_claims_is_granted(backend: BaseInterruptBackend) -> None:
    key = fresh_session()
    leases = [fresh_lease(key) for _ in range(RIVALS)]
    answers: dict[str, Claim] = {}

    async def claim(lease: Lease) -> None:
        answers[lease.run_id] = await backend.claim(lease)

    async with trio.open_nursery() as nursery:
        for lease in leases:
            nursery.start_soon(claim, lease)
    owners = [run_id for run_id, answer in answers.items() if isinstance(answer, Granted)]
    expect(len(owners) == 1, f"{len(owners)} of {RIVALS} concurrent claims of one session were granted, not 1")
    for answer in answers.values():
        expect(
            isinstance(answer, Granted) or (isinstance(answer, Busy) and answer.run_id == owners[0]),
            f"a claim that was not granted was answered with {answer!r} and not with Busy that names the owner",
        )


async def a_repeated_claim_gets_the_same_token(backend: BaseInterruptBackend) -> None:
    lease = fresh_lease()
    owner = await own(backend, lease)
    again = await backend.claim(lease)
    expect(again == Granted(owner.token), f"a claim was granted {owner.token}, and repeated it got {again!r}")


async def another_claim_of_the_same_run_is_refused(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    rival = fresh_lease(owner.key, run_id=owner.run_id)
    answer = await backend.claim(rival)
    expect(not isinstance(answer, Granted), "a run that runs on one node was granted to another node as well")
    expect(await backend.heartbeat([owner]) == [Renewal.OK], "a refused claim disturbed the owner")


async def tokens_only_grow(backend: BaseInterruptBackend) -> None:
    key = fresh_session()
    tokens = [0]
    for ending in (ENDED, FAILED, STOPPED, ENDED):
        lease = await own(backend, fresh_lease(key))
        expect(lease.token > tokens[-1], f"token {lease.token} came after {tokens[-1]} in the same session")
        tokens.append(lease.token)
        await backend.finish(lease, ending)


async def sessions_are_separate(backend: BaseInterruptBackend) -> None:
    mark = new_session_id()
    keys = [
        SessionKey(mark + "a:b", "c"),
        SessionKey(mark + "a", "b:c"),
        SessionKey(mark + "a", ":b:c"),
        SessionKey(mark, "a:b:c"),
        SessionKey(mark + "{a}", "b"),
        SessionKey(mark + "{a", "}b"),
    ]
    owners = [await own(backend, fresh_lease(key)) for key in keys]
    for owner in owners:
        status = await backend.status(owner.key)
        expect(status.run_id == owner.run_id, f"session {owner.key} is said to run {status.run_id!r}")
    await backend.finish(owners[0], ENDED)
    rest = await backend.heartbeat(owners[1:])
    expect(set(rest) == {Renewal.OK}, "the end of one session's run was felt in another session")


async def an_ended_run_cannot_be_claimed(backend: BaseInterruptBackend) -> None:
    lease = await own(backend)
    await backend.finish(lease, FAILED)
    for again in (attrs.evolve(lease, token=0), fresh_lease(lease.key, run_id=lease.run_id)):
        answer = await backend.claim(again)
        expect(
            isinstance(answer, Ended) and answer.state is RunState.ERROR and answer.reason == "exception",
            f"a run that had failed was claimed again, and the answer was {answer!r}",
        )


async def a_run_id_belongs_to_one_session(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    stranger = fresh_lease(run_id=owner.run_id)
    answer = await backend.claim(stranger)
    expect(answer == Taken(), f"a claim with the id of another session's running run got {answer!r}")
    expect(await backend.heartbeat([owner]) == [Renewal.OK], "the claim of its id elsewhere disturbed the owner")
    record = await backend.run_status(owner.run_id)
    expect(record is not None and record.key == owner.key, "the claim of its id elsewhere took a run's record")
    await backend.finish(owner, ENDED)
    answer = await backend.claim(stranger)
    expect(answer == Taken(), f"a claim with the id of another session's ended run got {answer!r}")


async def renewals_report_ownership(backend: BaseInterruptBackend) -> None:
    ended = await own(backend)
    await backend.finish(ended, ENDED)
    mine = await own(backend, fresh_lease(ended.key))
    stranger = attrs.evolve(fresh_lease(), token=1)
    older = attrs.evolve(mine, token=ended.token)
    other_run = attrs.evolve(mine, run_id=new_run_id())
    answers = await backend.heartbeat([ended, mine, stranger, older, mine, other_run])
    lost, ok = Renewal.LOST, Renewal.OK
    expect(
        list(answers) == [lost, ok, lost, lost, ok, lost],
        f"the renewal of (ended, mine, unknown, older token, mine, other run) was answered with {answers!r}",
    )
    expect(list(await backend.heartbeat([])) == [], "the renewal of nothing was answered with something")


QUESTIONS = questions_in(globals())
