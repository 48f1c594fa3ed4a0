"""Questions about the end of runs."""

from __future__ import annotations

import attrs

from ...abc import BaseInterruptBackend, Busy, Ended, Lease, Renewal
from ...protocol.ids import new_run_id
from ...protocol.lifecycle import Cause, CleanupResult, Ending, RunState
from .asking import expect, present, questions_in
from .parties import ENDED, FAILED, fresh_lease, own

__all__ = ["QUESTIONS"]


async def the_first_terminal_state_stays(backend: BaseInterruptBackend) -> None:
    lease = await own(backend)
    first = await backend.finish(lease, ENDED)
    expect(first.state is RunState.FINISHED, f"finish wrote {first.state.value} for a run that returned")
    second = await backend.finish(lease, FAILED)
    expect(second.state is RunState.FINISHED, f"a second finish was answered with {second.state.value}")
    kept = await backend.run_status(lease.run_id)
    expect(kept is not None and kept.state is RunState.FINISHED, "a second finish changed the terminal state")
    status = await backend.status(lease.key)
    expect(status.state is RunState.FINISHED, f"a second finish made the session {status.state.value}")


async def a_record_keeps_the_ending(backend: BaseInterruptBackend) -> None:
    lease = await own(backend)
    ending = Ending(cause=Cause.SHUTDOWN, cleanup=CleanupResult.DONE, cleanup_interrupted=True, stop_requested=True)
    await backend.finish(lease, ending)
    record = present(await backend.run_status(lease.run_id), "an ended run has no record")
    given = (RunState.STOPPED, "shutdown", CleanupResult.DONE, True, True, lease.key, lease.node_id, lease.token)
    kept = (
        record.state,
        record.reason,
        record.cleanup,
        record.cleanup_interrupted,
        record.stop_requested,
        record.key,
        record.node_id,
        record.token,
    )
    expect(kept == given, f"the record of an ended run is {record!r}")
    expect(
        record.started_at is not None and record.ended_at is not None and record.started_at <= record.ended_at,
        f"the run is said to have run from {record.started_at!r} to {record.ended_at!r}",
    )


async def the_end_of_a_run_frees_its_session(backend: BaseInterruptBackend) -> None:
    first = await own(backend)
    await backend.finish(first, FAILED)
    second = await own(backend, fresh_lease(first.key))
    await backend.finish(first, ENDED)
    expect(await backend.heartbeat([second]) == [Renewal.OK], "the late finish of one run ended the next one")
    status = await backend.status(first.key)
    expect(
        (status.state, status.run_id) == (RunState.RUNNING, second.run_id),
        f"after the late finish of an earlier run the session's status is {status!r}",
    )


async def a_stale_token_frees_nothing(backend: BaseInterruptBackend) -> None:
    first = await own(backend)
    await backend.finish(first, ENDED)
    owner = await own(backend, fresh_lease(first.key))
    await backend.finish(attrs.evolve(owner, token=first.token), FAILED)
    await _still_runs(backend, owner, "a finish with an older token")


async def without_a_token_the_same_claim_frees(backend: BaseInterruptBackend) -> None:
    lease = fresh_lease()
    await own(backend, lease)
    record = await backend.finish(lease, Ending(cause=Cause.CLAIM_FAILED))
    expect(record.state is RunState.ERROR, f"the claim was given up, and the run's state is {record.state.value}")
    await own(backend, fresh_lease(lease.key))


async def without_a_token_another_claim_frees_nothing(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    same_run = fresh_lease(owner.key, run_id=owner.run_id)
    await backend.finish(same_run, Ending(cause=Cause.CLAIM_FAILED))
    await _still_runs(backend, owner, "a claim of the same run, given up on another node,")
    other_run = attrs.evolve(fresh_lease(owner.key), node_id=owner.node_id, nonce=owner.nonce)
    await backend.finish(other_run, Ending(cause=Cause.CLAIM_FAILED))
    await _still_runs(backend, owner, "a claim of another run, given up,")


async def a_claim_that_was_given_up_ends_when_it_comes(backend: BaseInterruptBackend) -> None:
    lease = fresh_lease()
    await backend.finish(lease, Ending(cause=Cause.CLAIM_FAILED))
    answer = await backend.claim(lease)
    expect(
        isinstance(answer, Ended) and answer.state is RunState.ERROR and answer.reason == "claim_failed",
        f"a claim that came after it had been given up was answered with {answer!r}",
    )
    status = await backend.status(lease.key)
    expect(status.state is not RunState.RUNNING, "a claim that came after it had been given up took its session")
    await own(backend, fresh_lease(lease.key))


async def a_foreign_session_ends_nothing(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    stranger = fresh_lease(run_id=owner.run_id)
    await backend.finish(stranger, Ending(cause=Cause.CLAIM_FAILED))
    await _still_runs(backend, owner, "the finish of a run of the same id in another session")
    await backend.finish(attrs.evolve(owner, key=stranger.key, nonce=new_run_id()), FAILED)
    await _still_runs(backend, owner, "a finish that names another session")


async def _still_runs(backend: BaseInterruptBackend, owner: Lease, what: str) -> None:
    expect(await backend.heartbeat([owner]) == [Renewal.OK], f"{what} took the lease from its owner")
    record = await backend.run_status(owner.run_id)
    expect(record is not None and record.state is RunState.RUNNING, f"{what} ended the record of a running run")
    status = await backend.status(owner.key)
    expect(status.state is RunState.RUNNING, f"{what} made a running session {status.state.value}")
    answer = await backend.claim(fresh_lease(owner.key))
    expect(isinstance(answer, Busy), f"{what} let a second owner in: {answer!r}")


QUESTIONS = questions_in(globals())
