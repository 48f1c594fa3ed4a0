"""Who may run: claims, refusals, what a failing backend leaves behind, and the registry's own end."""

import gc
import weakref

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_agentapp.abc import Lease, StopOutcome
from trio_agentapp.errors import BackendUnavailable, Draining, SessionBusy, TooManyRuns, ValidationError
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.protocol.ids import SessionKey, new_run_id
from trio_agentapp.protocol.lifecycle import Cause, Ending, RunRecord, RunState
from trio_agentapp.protocol.request import CancelAfter
from trio_agentapp.runs import drain, stop_run
from trio_agentapp.testing import Script, UnrulyBackend, cleanup, say, swallow, wait

FINISHED = ("FINISHED", "returned")
STOPPED = ("STOPPED", "stopped")
SHUTDOWN = ("STOPPED", "shutdown")
BEFORE = ("STOPPED", "stopped_before_start")
KEY = SessionKey("ann", "chat")


async def test_a_hundred_starts_at_once_are_one_run(autojump_clock, house, how) -> None:
    script = Script(wait(1))
    runs, refused = [], []

    async def start() -> None:
        try:
            runs.append(await house.start(script, key=KEY))
        except SessionBusy as exc:
            refused.append(exc.active_run_id)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(start)
    assert len(runs) == 1
    assert refused == [runs[0].run_id] * 99
    await runs[0].ended.wait()
    assert script.done.count("unwound") == 1
    assert how(runs[0]) == FINISHED


async def test_a_session_is_free_when_its_end_can_be_seen(autojump_clock, house) -> None:
    script = Script(say("a"))
    for _ in range(5):
        run = await house.start(script, key=KEY)
        with run.log.subscribe() as reader:
            with pytest.raises(trio.EndOfChannel):  # noqa: PT012  it comes after some batches
                while True:
                    await reader.receive()
        # The next turn of the chat follows at once, and is not refused.
    assert [event for event in script.done if event == "unwound"] == ["unwound"] * 5


async def test_tokens_grow_from_run_to_run(autojump_clock, house) -> None:
    tokens = [(await house.play(Script(), key=KEY)).token for _ in range(3)]
    assert sorted(set(tokens)) == tokens
    assert tokens[0] > 0


async def test_sessions_whose_ids_join_to_the_same_text_never_meet(autojump_clock, house, how) -> None:
    one = await house.start(Script(wait(5)), key=SessionKey("a:b", "c"))
    two = await house.start(Script(wait(5)), key=SessionKey("a", "b:c"))
    await house.stop(one, wait=True)
    await two.ended.wait()
    assert (how(one), how(two)) == (STOPPED, FINISHED)


async def test_a_run_id_is_taken_once(autojump_clock, house) -> None:
    run = await house.start(Script(wait(5)), key=KEY, run_id="run-0001")
    with pytest.raises(SessionBusy):
        await house.start(Script(), key=KEY, run_id="run-0001")
    with pytest.raises(ValidationError, match="taken by another run"):
        await house.start(Script(), key=SessionKey("bob", "chat"), run_id="run-0001")
    await run.ended.wait()
    with pytest.raises(ValidationError, match="has ended already"):
        await house.start(Script(), key=KEY, run_id="run-0001")


async def test_a_node_takes_so_many_runs(autojump_clock, open_house) -> None:
    async with open_house(max_runs=2) as house:
        first = await house.start(Script(wait(1)))
        await house.start(Script(wait(5)))
        with pytest.raises(TooManyRuns):
            await house.start(Script())
        await first.ended.wait()
        await house.start(Script())


async def test_two_nodes_share_a_backend(autojump_clock, open_house, how) -> None:
    server = UnrulyBackend(LocalInterruptBackend())
    async with open_house(backend=server) as here, open_house(backend=server, node_id="node-2") as there:
        run = await here.start(Script(wait()), key=KEY)
        with pytest.raises(SessionBusy) as refused:
            await there.start(Script(), key=KEY)
        assert refused.value.active_run_id == run.run_id
        receipt = await there.stop(run, wait=True)
        assert (receipt.accepted, receipt.stopped, receipt.node) == (True, True, "node-1")
        assert how(run) == STOPPED


async def test_a_retry_of_a_run_on_another_node_leaves_the_first_alone(autojump_clock, open_house, how) -> None:
    """Its claim is given up, and that must not end the record of the run that runs."""
    server = UnrulyBackend(LocalInterruptBackend())
    async with open_house(backend=server) as here, open_house(backend=server, node_id="node-2") as there:
        run = await here.start(Script(wait(100)), key=KEY, run_id="run-0001")
        server.lose("claim")
        with pytest.raises(BackendUnavailable):
            await there.start(Script(), key=KEY, run_id="run-0001")
        record = await server.run_status("run-0001")
        assert record.state is RunState.RUNNING
        await here.stop(run, wait=True)
        assert how(run) == STOPPED


# Claims that go wrong.


@pytest.mark.parametrize("error", [BackendUnavailable("down"), OSError("down"), RuntimeError("bug")])
@pytest.mark.parametrize("happened", [False, True])
async def test_a_failing_claim_starts_nothing_and_leaks_nothing(
    autojump_clock, house, how, error, happened, log_text
) -> None:
    script = Script()
    (house.backend.lose if happened else house.backend.fail)("claim", error)
    with pytest.raises(BackendUnavailable):
        await house.start(script, key=KEY)
    assert script.done == []
    assert house.registry.live() == []
    assert how(await house.play(script, key=KEY)) == FINISHED


async def test_a_claim_that_fails_and_cannot_be_given_up_either_leaks_nothing_here(
    autojump_clock, house, log_text
) -> None:
    house.backend.fail("claim")
    house.backend.fail("finish")
    with pytest.raises(BackendUnavailable):
        await house.start(Script(), key=KEY)
    assert house.registry.live() == []
    assert "could not be freed" in log_text()


@pytest.mark.parametrize("happened", [False, True])
async def test_a_cancelled_start_frees_its_session(autojump_clock, house, how, happened) -> None:
    script = Script()
    house.backend.hold("claim", after=happened)
    with trio.move_on_after(1) as patience:
        await house.start(script, key=KEY)
    assert patience.cancelled_caught
    assert script.done == []
    assert house.registry.live() == []
    assert how(await house.play(script, key=KEY)) == FINISHED


async def test_a_start_that_is_cancelled_inside_a_nursery_of_its_backend_frees_it_too(
    autojump_clock, open_house, how
) -> None:
    class Nested(UnrulyBackend):
        async def claim(self, lease: Lease):
            answers = []

            async def ask() -> None:
                answers.append(await super(Nested, self).claim(lease))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                nursery.start_soon(trio.sleep, 0)
            return answers[0]

    async with open_house(backend=Nested(LocalInterruptBackend())) as house:
        house.backend.hold("claim", after=True)
        with trio.move_on_after(1):
            await house.start(Script(), key=KEY)
        assert how(await house.play(Script(), key=KEY)) == FINISHED


async def test_a_stop_during_a_slow_claim_is_not_lost(autojump_clock, house, how) -> None:
    for after in (False, True):
        script = Script(say("never"))
        gate = house.backend.hold("claim", after=after)
        run_id = new_run_id()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def start(script=script, run_id=run_id) -> None:
                await house.start(script, run_id=run_id)

            await wait_all_tasks_blocked()
            run = house.registry.find(run_id)
            receipt = await house.stop(run)
            assert receipt.accepted
            gate.set()
        await run.ended.wait()
        assert script.done == []
        assert how(run) == (STOPPED if after else BEFORE)


async def test_a_signal_that_overtakes_the_answer_to_its_claim_finds_its_run(autojump_clock, house, how) -> None:
    script = Script()
    gate = house.backend.hold("claim", after=True)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def start() -> None:
            await house.start(script, key=KEY)

        await wait_all_tasks_blocked()
        answer = await house.backend.request_stop(KEY)
        assert answer.outcome is StopOutcome.ACCEPTED
        gate.set()
    (run,) = house.started
    await run.ended.wait()
    assert script.done == []
    assert how(run) == STOPPED


async def test_a_run_stopped_before_it_came_has_a_stream_all_the_same(autojump_clock, house, how, events) -> None:
    script = Script()
    await house.backend.request_stop(KEY, "run-0001")
    run = await house.play(script, key=KEY, run_id="run-0001")
    assert how(run) == BEFORE
    assert script.done == []
    told = await events(run)
    assert [event.status for event in told] == ["created", "in_progress", "canceled"]


# Ends that cannot be written.


async def test_a_finish_that_fails_still_ends_the_run_here(autojump_clock, open_house, how, log_text) -> None:
    async with open_house(check=False) as house:
        house.backend.fail("finish", RuntimeError("down"))
        bystander = await house.start(Script(wait(3)))
        run = await house.play(Script(say("a")))
        assert how(run) == FINISHED
        assert run.log.closed
        assert "its end could not be written" in log_text()
        await bystander.ended.wait()
        assert how(bystander) == FINISHED


async def test_the_backend_knows_better_how_it_ended(autojump_clock, open_house, how, events) -> None:
    async with open_house(check=False) as house:
        run = await house.start(Script(wait(2)))
        lease = house.backend.inner._sessions[run.key].lease
        await house.backend.finish(lease, Ending(cause=Cause.OWNER_LOST))
        await run.ended.wait()
        assert how(run) == ("ERROR", "owner_lost")
        last = (await events(run))[-1]
        assert (last.status, last.error.code) == ("failed", "owner_lost")


@pytest.mark.parametrize("reason", ["claim_failed", "struck by lightning", None])
async def test_an_unexpected_record_harms_nobody(autojump_clock, open_house, how, events, reason) -> None:
    class Odd(UnrulyBackend):
        async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
            await super().finish(lease, ending)
            return RunRecord(run_id=lease.run_id, key=lease.key, state=RunState.ERROR, reason=reason)

    async with open_house(backend=Odd(LocalInterruptBackend()), check=False) as house:
        run = await house.play(Script(say("a")))
        assert run.log.closed
        told = [event for event in await events(run) if getattr(event, "terminal", False)]
        assert len(told) == 1
        assert how(run) == (("ERROR", reason) if reason == "claim_failed" else FINISHED)


# The registry's own end.


async def test_leaving_the_registry_stops_and_joins_everything(autojump_clock, open_house, how) -> None:
    scripts = [Script(wait()), Script(wait(0.5), wait()), Script(cleanup(5), wait())]
    async with open_house() as house:
        for script in scripts:
            await house.start(script)
        await trio.sleep(1)
    assert all(script.unwound.is_set() for script in scripts)
    assert [how(run) for run in house.started] == [SHUTDOWN] * 3


async def test_it_joins_them_also_when_it_is_cancelled(autojump_clock, open_house, how) -> None:
    saved = []

    async def handler(run):
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(5)
                saved.append(1)

    with trio.move_on_after(1):
        async with open_house() as house:
            run = await house.start(handler)
            await trio.sleep_forever()
    assert saved == [1]
    assert how(run) == SHUTDOWN


async def test_a_start_that_is_still_claiming_then_starts_nothing(autojump_clock, open_house) -> None:
    script = Script()
    refused = []
    async with trio.open_nursery() as nursery:
        async with open_house() as house:
            gate = house.backend.hold("claim", after=True)

            @nursery.start_soon
            async def start() -> None:
                with pytest.raises(Draining):
                    await house.start(script, key=KEY)
                refused.append(1)

            await wait_all_tasks_blocked()
            (run,) = house.registry.live()
            nursery.start_soon(open_later, gate)
    assert refused == [1]
    assert script.done == []
    assert run.log.closed
    assert (await house.backend.status(KEY)).state is RunState.STOPPED
    with pytest.raises(Draining):
        await house.start(script)


async def open_later(gate: trio.Event) -> None:
    await trio.sleep(2)
    gate.set()


# Drain.


async def test_a_drain_waits_for_runs_and_takes_no_new_ones(autojump_clock, house, how) -> None:
    run = await house.start(Script(wait(20)))
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, house.registry, 30)
        await trio.sleep(1)
        with pytest.raises(Draining):
            await house.start(Script())
        assert house.registry.statistics().draining
    assert trio.current_time() - began == pytest.approx(20)
    assert how(run) == FINISHED


async def test_a_drain_stops_what_takes_too_long(autojump_clock, house, how) -> None:
    async def handler(run):
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(8)

    run = await house.start(handler)
    began = trio.current_time()
    await drain(house.registry, 30)
    assert trio.current_time() - began == pytest.approx(38)
    assert how(run) == SHUTDOWN


async def test_a_drain_may_be_told_to_hurry(autojump_clock, house, how) -> None:
    run = await house.start(Script(wait()))
    hurry = trio.Event()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, house.registry, 30, hurry)
        await trio.sleep(3)
        hurry.set()
    assert trio.current_time() - began == pytest.approx(3)
    assert how(run) == SHUTDOWN


async def test_a_drain_of_nothing_is_over_at_once(autojump_clock, house) -> None:
    began = trio.current_time()
    await drain(house.registry, 30, trio.Event())
    assert trio.current_time() == began


async def test_watchers_of_a_run_that_overruns_get_a_terminal_event(
    autojump_clock, house, log_text, events
) -> None:
    let_go = trio.Event()

    async def handler(run):
        yield "a"
        with trio.CancelScope(shield=True):
            await let_go.wait()
        yield "unheard"

    run = await house.start(handler)
    began = trio.current_time()
    await drain(house.registry, 5)
    assert trio.current_time() - began == pytest.approx(16)
    told = await events(run)
    assert (told[-1].status, told[-1].error.code) == ("failed", "cleanup_timeout")
    assert "has not ended within its cleanup budget" in log_text()
    assert not run.ended.is_set()
    let_go.set()
    await run.ended.wait()
    assert await events(run) == told
    house.abandoned.add(run.run_id)  # what was shown at the drain differs from what became of it


async def test_a_claim_that_overruns_a_drain_harms_nobody(autojump_clock, open_house, how) -> None:
    async with open_house(check=False) as house:
        gate = house.backend.hold("claim", after=True)
        script = Script(say("never"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start_one, house, script)
            await wait_all_tasks_blocked()
            await drain(house.registry, 5)
            (run,) = house.registry.live()
            assert run.log.closed
            gate.set()
        await run.ended.wait()
        assert script.done == []
        assert how(run) == SHUTDOWN


async def start_one(house, script) -> None:
    await house.start(script, key=KEY)


# Watchers.


async def test_the_last_watcher_that_leaves_stops_the_run(autojump_clock, house, how) -> None:
    run = await house.start(Script(wait()), on_disconnect="cancel")
    first, second = run.watch(), run.watch()
    await trio.sleep(1)
    first.close()
    await trio.sleep(100)
    assert not run.ended.is_set()
    second.close()
    await run.ended.wait()
    assert how(run) == ("STOPPED", "disconnected")


async def test_a_watcher_that_leaves_after_the_end_changes_nothing(autojump_clock, house, how) -> None:
    run = await house.start(Script(say("a")), on_disconnect="cancel")
    with run.watch():
        await run.ended.wait()
    assert how(run) == FINISHED


async def test_a_run_may_go_on_unwatched(autojump_clock, house, how) -> None:
    run = await house.start(Script(wait(1000)), on_disconnect="continue")
    run.watch().close()
    await run.ended.wait()
    assert how(run) == FINISHED


async def test_a_run_may_go_on_unwatched_for_a_while(autojump_clock, house, how) -> None:
    run = await house.start(Script(wait(1000)), on_disconnect=CancelAfter(20))
    began = trio.current_time()
    run.watch().close()
    await trio.sleep(15)
    with run.watch():
        await trio.sleep(100)
        assert not run.ended.is_set()
    await run.ended.wait()
    assert how(run) == ("STOPPED", "disconnected")
    assert 135 <= trio.current_time() - began <= 136


# Stops by session and by run.


async def test_a_stop_by_session_reaches_the_run_that_has_it(autojump_clock, house, how) -> None:
    run = await house.start(leave_slowly, key=KEY)
    await wait_all_tasks_blocked()
    gate = house.backend.hold("claim")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def start_another() -> None:
            with pytest.raises(SessionBusy):
                await house.start(Script(), key=KEY)

        await wait_all_tasks_blocked()
        receipt = await stop_run(house.registry, house.backend, KEY)
        assert receipt.run_id == run.run_id
        gate.set()
    await run.ended.wait()
    assert how(run) == STOPPED


async def test_a_stop_by_session_reaches_the_owner_elsewhere_before_a_claim_here(
    autojump_clock, open_house, how
) -> None:
    server = UnrulyBackend(LocalInterruptBackend())
    async with open_house(backend=server) as here, open_house(backend=server, node_id="node-2") as there:
        run = await there.start(leave_slowly, key=KEY)
        await wait_all_tasks_blocked()
        gate = server.hold("claim")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def start_here() -> None:
                with pytest.raises(SessionBusy):
                    await here.start(Script(), key=KEY)

            await wait_all_tasks_blocked()
            receipt = await stop_run(here.registry, server, KEY)
            assert (receipt.run_id, receipt.node) == (run.run_id, "node-2")
            gate.set()
        await run.ended.wait()
        assert how(run) == STOPPED


async def leave_slowly(run):
    try:
        await trio.sleep_forever()
    finally:
        async with run.cleanup():
            await trio.sleep(5)


async def test_a_stop_by_session_reaches_a_run_that_only_claims(autojump_clock, house, how) -> None:
    script = Script()
    for after in (False, True):
        gate = house.backend.hold("claim", after=after)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start_one, house, script)
            await wait_all_tasks_blocked()
            receipt = await stop_run(house.registry, house.backend, KEY)
            assert receipt.accepted
            gate.set()
        run = house.started[-1]
        assert receipt.run_id == run.run_id
        await run.ended.wait()
        assert how(run)[0] == "STOPPED"
    assert script.done == []


async def test_a_stop_of_an_idle_session_says_so(autojump_clock, house) -> None:
    receipt = await stop_run(house.registry, house.backend, KEY, wait=True)
    assert (receipt.accepted, receipt.stopped, receipt.run_id) == (False, False, None)
    await house.play(Script(), key=KEY)
    receipt = await stop_run(house.registry, house.backend, KEY, wait=True)
    assert (receipt.accepted, receipt.state) == (False, RunState.FINISHED)
    with pytest.raises(ValueError, match="session, a run, or both"):
        await stop_run(house.registry, house.backend, None)


async def test_a_stop_of_an_ended_run_tells_how_it_ended(autojump_clock, house) -> None:
    run = await house.start(Script(wait()), key=KEY)
    await house.stop(run, wait=True)
    later = await house.start(Script(wait(5)), key=KEY)
    receipt = await house.stop(run)
    assert (receipt.accepted, receipt.stopped, receipt.state) == (False, True, RunState.STOPPED)
    await later.ended.wait()
    assert later.lifecycle.ending.cause is Cause.RETURNED


async def test_a_foreign_stop_touches_nothing(autojump_clock, house, how) -> None:
    run = await house.start(Script(wait(50)), key=KEY)
    for key, user in ((SessionKey("bob", "chat"), None), (None, "bob")):
        told = await stop_run(house.registry, house.backend, key, run.run_id, user_id=user, wait=True)
        unknown = await stop_run(house.registry, house.backend, key, "never-was", user_id=user, wait=True)
        assert (told.accepted, told.stopped, told.state, told.node) == (
            unknown.accepted,
            unknown.stopped,
            unknown.state,
            unknown.node,
        )
    await run.ended.wait()
    assert how(run) == FINISHED


async def test_a_stop_works_where_the_backend_does_not(autojump_clock, house, how) -> None:
    run = await house.start(Script(wait()), key=KEY)
    house.backend.fail("request_stop")
    receipt = await house.stop(run, wait=True)
    assert (receipt.accepted, receipt.stopped) == (True, True)
    house.backend.fail("request_stop")
    with pytest.raises(BackendUnavailable):
        await house.stop(run)


async def test_a_waiting_stop_does_not_wait_for_ever(autojump_clock, house, how) -> None:
    let_go = trio.Event()

    async def handler(run):
        with trio.CancelScope(shield=True):
            await let_go.wait()

    run = await house.start(handler)
    await wait_all_tasks_blocked()
    began = trio.current_time()
    receipt = await house.stop(run, wait=True)
    assert trio.current_time() - began == pytest.approx(15)
    assert (receipt.accepted, receipt.stopped, receipt.cleanup.value) == (True, False, "timed_out")
    let_go.set()
    await run.ended.wait()


async def test_a_run_may_stop_itself(autojump_clock, house, how) -> None:
    async def handler(run):
        yield "a"
        await house.stop(run)
        yield "b"
        await trio.sleep_forever()

    run = await house.play(handler)
    assert how(run) == STOPPED


async def test_a_muted_swallower_does_not_hold_others_up(autojump_clock, house, how) -> None:
    swallower = await house.start(Script(swallow(9), swallow(9), swallow(9)))
    others = [await house.start(Script(wait(3))) for _ in range(10)]
    await trio.sleep(1)
    await house.stop(swallower, wait=True)
    for run in others:
        await run.ended.wait()
        assert how(run) == FINISHED


async def test_a_run_that_has_ended_needs_no_garbage_collector(autojump_clock, house) -> None:
    """Its events can be many megabytes: they go with the last reference to it."""
    gone = weakref.WeakSet()

    async def handler(run):
        run.start_soon(trio.sleep_forever)
        run.on_exit(lambda: None)
        yield "a"
        async with run.cleanup():
            await trio.sleep(1)

    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            run = await house.start(handler)
            with run.watch() as reader:
                await reader.receive()
            await run.ended.wait()
            gone.add(run)
            house.started.clear()
            del run, reader
        await wait_all_tasks_blocked()
        # The loop may still refer to what it did last.
        assert len(gone) <= 1
    finally:
        gc.enable()
