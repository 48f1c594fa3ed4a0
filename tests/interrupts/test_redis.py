"""The Redis backend on real servers: the questions of the contract, and what only leases and servers can do."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from trio_agentapp.abc import (
    Busy,
    Ended,
    Granted,
    InputAnswer,
    InputSignal,
    Place,
    Queued,
    Renewal,
    Resync,
    Signal,
    StopOutcome,
)
from trio_agentapp.errors import BackendUnavailable, ConfigurationError
from trio_agentapp.interrupts.redis import RedisInterruptBackend
from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.lifecycle import Cause, Ending, RunState
from trio_agentapp.protocol.timings import Timings
from trio_agentapp.redis import LinkError, RedisClient
from trio_agentapp.runs import Handler, Run, RunRegistry, stop_run
from trio_agentapp.testing import Question, ask, interrupt_questions
from trio_agentapp.testing.faulty_proxy import FaultyProxy
from trio_agentapp.testing.redis_server import RedisServer, installed_kinds

from .redis_house import (
    LONG,
    NO_REAPER,
    RETURNED,
    TIMINGS,
    Probe,
    fresh_lease,
    fresh_prefix,
    old_server,
    open_backend,
    open_probe,
    own,
    serving,
    until,
    until_async,
)

NEW_KINDS = [kind for kind in installed_kinds() if kind != "redis6"]
"""Those that let a script say that it frees memory, or is needed to."""


@pytest.fixture(scope="module", params=installed_kinds())
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with old_server(request.param) as server:
        yield server


@pytest.fixture(scope="module", params=NEW_KINDS[:1])
def one_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """For what cannot differ between the kinds."""
    with old_server(request.param) as server:
        yield server


# The contract.


@pytest.mark.parametrize("question", interrupt_questions(), ids=lambda question: question.__name__)
async def test_it_answers(server: RedisServer, question: Question) -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[RedisInterruptBackend]:
        backend = RedisInterruptBackend(server.url, prefix=fresh_prefix())
        backend._quarantine._lease = 0.0  # with the default lease; its quarantine has tests of its own
        yield backend

    await ask(make, question)


def test_it_may_be_served_again_in_another_trio_run(server: RedisServer) -> None:
    """Each run of Trio has a clock of its own: what was a moment ago may be a day ahead."""
    backend = RedisInterruptBackend(server.url, prefix=fresh_prefix(), timings=TIMINGS)

    async def trouble() -> str | None:
        async with serving(backend):
            return backend.trouble

    for _ in range(4):
        assert trio.run(trouble) is None


async def test_it_answers_from_two_nodes(one_server: RedisServer) -> None:
    """What one process claims another one sees: claims, stops and ends go through the server alone."""
    prefix = fresh_prefix()
    async with (
        open_backend(one_server, prefix=prefix, timings=LONG) as here,
        open_backend(one_server, prefix=prefix, timings=LONG) as there,
    ):
        lease = await own(here)
        assert isinstance(await there.claim(fresh_lease(lease.key)), Busy)
        assert (await there.request_stop(lease.key)).outcome is StopOutcome.ACCEPTED
        assert await here.heartbeat([lease]) == [Renewal.STOP]
        await here.finish(lease, RETURNED)
        record = await there.run_status(lease.run_id)
        assert record is not None
        assert (record.state, record.stop_requested) == (RunState.FINISHED, True)
        assert (await own(there, fresh_lease(lease.key))).token > lease.token


# Keys.


@pytest.fixture
async def backend(one_server: RedisServer) -> AsyncIterator[RedisInterruptBackend]:
    async with open_backend(one_server, timings=LONG) as backend:
        yield backend


@pytest.fixture
async def probe(one_server: RedisServer, backend: RedisInterruptBackend) -> AsyncIterator[Probe]:
    async with open_probe(one_server, backend) as probe:
        yield probe


KNOWN_KEYS = re.compile(
    r"\{[0-9a-f]{32}\}:(s|x|r:[A-Za-z0-9_-]{8,64})|run:[A-Za-z0-9_-]{8,64}|lease:(\d|1[0-5])|u:[0-9a-f]{32}"
)


async def test_the_keys_are_those_of_the_protocol(backend: RedisInterruptBackend, probe: Probe) -> None:
    """All of them end by themselves, and none holds a user's text in its name."""
    key = SessionKey("eve\r\n*{x}", "tab\t:secret: ünï")
    running = await own(backend, fresh_lease(key))
    ended = await own(backend, fresh_lease(SessionKey("eve", "other")))
    await backend.finish(ended, RETURNED)
    await backend.request_stop(key, "stopped-before")
    await backend.request_stop(None, "unknown-run-1", user_id="eve")
    await backend.request_stop(None, "unknown-run-2")
    await backend.claim(fresh_lease(key, run_id="refused-run-1"))
    await backend.heartbeat([running])
    await backend.request_stop(key)
    at = key.digest
    here, there = f"{{{at}}}", f"{{{ended.key.digest}}}"
    assert await probe.keys() == {
        f"{here}:s",
        f"{here}:x",
        f"{here}:r:{running.run_id}",
        f"{there}:s",
        f"{there}:r:{ended.run_id}",
        f"run:{running.run_id}",
        f"run:{ended.run_id}",
        "run:refused-run-1",
        "run:unknown-run-1",
        "run:unknown-run-2",
        f"lease:{int(at[0], 16)}",
        f"lease:{int(ended.key.digest[0], 16)}",
        *(f"u:{hashlib.sha256(user.encode()).hexdigest()[:32]}" for user in (key.user_id, "eve")),
    }
    for name in await probe.keys():
        assert KNOWN_KEYS.fullmatch(name), name
        left = await probe.time_left(name)
        assert 0 < left <= LONG.session_ttl, (name, left)
    assert set(await probe.session(key)) == {
        "state", "run", "owner", "tok", "exp", "nonce", "last", "stop", "stop_at", "stop_by",
    }  # fmt: skip
    assert set(await probe.record(running)) == {"state", "tok", "node", "started", "stop_requested", "stop_at"}
    assert 590 < await probe.time_left(f"{there}:r:{ended.run_id}") <= LONG.retention
    assert 590 < await probe.time_left(f"run:{ended.run_id}") <= LONG.retention
    assert 50 < await probe.time_left(f"{here}:x") <= LONG.tombstone
    assert 50 < await probe.time_left("run:unknown-run-1") <= LONG.tombstone


async def test_keys_that_look_alike_are_not(backend: RedisInterruptBackend, probe: Probe) -> None:
    assert SessionKey("a:b", "c").digest != SessionKey("a", "b:c").digest
    one = await own(backend, fresh_lease(SessionKey("a:b", "c")))
    two = await own(backend, fresh_lease(SessionKey("a", "b:c")))
    assert (await probe.session(one.key))["run"] == one.run_id
    assert (await probe.session(two.key))["run"] == two.run_id


async def test_a_renewed_run_keeps_its_keys(backend: RedisInterruptBackend, probe: Probe) -> None:
    """A run may go on for days: everything that leads to it is renewed with its lease."""
    lease = await own(backend)
    mine = [f"{{{lease.key.digest}}}:s", f"{{{lease.key.digest}}}:r:{lease.run_id}", f"run:{lease.run_id}"]
    for name in mine:
        await probe.client.call("PEXPIRE", f"{probe.prefix}:{name}", 20_000)
    assert await backend.heartbeat([lease]) == [Renewal.OK]
    for name in mine:
        assert await probe.time_left(name) > 3590


async def test_numbers_are_written_in_full(backend: RedisInterruptBackend, probe: Probe) -> None:
    """Lua's `tostring` would make 1.7e15 of a token; equal tokens would follow, and fences that hold nothing."""
    lease = await own(backend)
    await backend.request_stop(lease.key)
    await backend.heartbeat([lease])
    fields = {**await probe.session(lease.key), **await probe.record(lease)}
    await backend.finish(lease, RETURNED)
    fields |= await probe.record(lease)
    for name in ("tok", "exp", "last", "stop_at", "started", "ended"):
        assert re.fullmatch(r"\d{13}|\d{16}", fields[name]), (name, fields[name])
    assert fields["tok"] == str(lease.token)
    assert lease.token > 1.7e15
    # As far as Lua's numbers go.
    great = 2**53 - 2
    await probe.client.call("HSET", f"{probe.prefix}:{{{lease.key.digest}}}:s", "tok", great)
    assert (await own(backend, fresh_lease(lease.key))).token == great + 1


async def test_apps_with_different_prefixes_never_meet(one_server: RedisServer) -> None:
    key = SessionKey("ann", "chat")
    async with open_backend(one_server, timings=LONG) as here, open_backend(one_server, timings=LONG) as there:
        heard: list[Signal] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(there.listen, "node-1", heard.append)
            first = await own(here, fresh_lease(key, run_id="the-same-run"))
            second = await own(there, fresh_lease(key, run_id="the-same-run"))
            await here.request_stop(key)
            assert await here.heartbeat([first]) == [Renewal.STOP]
            assert await there.heartbeat([second]) == [Renewal.OK]
            await here.finish(first, RETURNED)
            assert (await there.status(key)).state is RunState.RUNNING
            # Had the stop gone to the other app, it would have come before this one.
            await there.request_stop(key)
            await until(lambda: heard)
            nursery.cancel_scope.cancel()
        assert [getattr(signal, "token", None) for signal in heard] == [second.token]


@pytest.mark.parametrize("prefix", ["", "a{b", "a}b", "a b", "a\nb"])
def test_a_prefix_that_cannot_work_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="Redis prefix"):
        RedisInterruptBackend("redis://localhost", prefix=prefix)


# Tokens.


async def test_tokens_grow_beyond_the_life_of_their_records(backend: RedisInterruptBackend, probe: Probe) -> None:
    tokens = []
    for _ in range(2):
        lease = await own(backend, fresh_lease(SessionKey("ann", "chat")))
        tokens.append(lease.token)
        await backend.finish(lease, RETURNED)
        # Its time is over: everything that is known of the session has expired.
        await probe.client.call("DEL", *(f"{probe.prefix}:{name}" for name in await probe.keys()))
    lease = await own(backend, fresh_lease(SessionKey("ann", "chat")))
    tokens.append(lease.token)
    await probe.client.call("FLUSHALL")
    assert await backend.heartbeat([lease]) == [Renewal.LOST]
    tokens.append((await own(backend, fresh_lease(SessionKey("ann", "chat")))).token)
    assert tokens == sorted(set(tokens))


# Ends of leases.


async def test_the_reaper_ends_the_runs_of_a_dead_owner(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Within L + R, without anybody looking; and not before L."""
    async with open_backend(server) as backend, open_probe(server, backend) as probe:
        before = trio.current_time()
        lease = await own(backend)
        stopped = await own(backend)
        await backend.request_stop(stopped.key)
        after = trio.current_time()

        async def ended() -> bool:
            return all([(await probe.record(each)).get("reason") for each in (lease, stopped)])

        await until_async(ended)
        now = trio.current_time()
        assert now - before >= TIMINGS.lease
        assert now - after <= TIMINGS.lease + TIMINGS.reaper + 0.5
        record = await probe.record(lease)
        assert (record["state"], record["reason"], record["node"]) == ("ERROR", "owner_lost", "node-1")
        for each in (lease, stopped):
            assert caplog.text.count(f"run {each.run_id} was reaped: node node-1 let its lease expire") == 1
        assert record["tok"] == str(lease.token)
        assert "stop_requested" not in record
        assert (await probe.record(stopped))["stop_requested"] == "1"
        assert (await probe.session(lease.key))["state"] == "ERROR"
        await until_async(lambda: _is_not(probe.indexed(lease.key)))
        assert await backend.heartbeat([lease]) == [Renewal.LOST]
        late = await backend.finish(lease, RETURNED)
        assert (late.state, late.reason) == (RunState.ERROR, "owner_lost")


async def _is_not(answer) -> bool:
    return await answer is None


async def test_the_reaper_leaves_the_living_alone(one_server: RedisServer) -> None:
    async with open_backend(one_server) as backend:
        lease = await own(backend)
        until = trio.current_time() + 2.5 * TIMINGS.lease
        while trio.current_time() < until:
            await trio.sleep(TIMINGS.heartbeat)
            assert await backend.heartbeat([lease]) == [Renewal.OK]


LOOKS = ["status", "run_status", "stop", "stop run", "stop run alone", "claim", "claim same run", "finish next"]


@pytest.mark.parametrize("look", LOOKS)
async def test_any_look_frees_a_dead_session(one_server: RedisServer, look: str) -> None:
    async with open_backend(one_server, timings=NO_REAPER) as backend, open_probe(one_server, backend) as probe:
        lease = await own(backend)
        await probe.wait_expired(lease.key)
        assert (await probe.session(lease.key))["state"] == "RUNNING"
        match look:
            case "status":
                assert (await backend.status(lease.key)).state is RunState.ERROR
            case "run_status":
                record = await backend.run_status(lease.run_id)
                assert record is not None
                assert (record.state, record.reason) == (RunState.ERROR, "owner_lost")
            case "stop":
                answer = await backend.request_stop(lease.key)
                assert (answer.outcome, answer.state) == (StopOutcome.ENDED, RunState.ERROR)
                assert (answer.run_id, answer.node_id) == (lease.run_id, "node-1")
            case "stop run":
                answer = await backend.request_stop(lease.key, lease.run_id)
                assert (answer.outcome, answer.state) == (StopOutcome.ENDED, RunState.ERROR)
            case "stop run alone":
                answer = await backend.request_stop(None, lease.run_id)
                assert (answer.outcome, answer.state) == (StopOutcome.ENDED, RunState.ERROR)
            case "claim":
                assert (await own(backend, fresh_lease(lease.key))).token > lease.token
            case "claim same run":
                # A client that tries again elsewhere, with its own run id: the run has ended, for good.
                answer = await backend.claim(fresh_lease(lease.key, run_id=lease.run_id, node_id="node-2"))
                assert answer == Ended(RunState.ERROR, "owner_lost")
                assert (await probe.session(lease.key))["state"] == "ERROR"
            case "finish next":
                # The owner was only slow, and nobody has come meanwhile: its lease is still its own.
                assert await backend.heartbeat([lease]) == [Renewal.OK]
                assert (await backend.finish(lease, RETURNED)).state is RunState.FINISHED
                return
        record = await probe.record(lease)
        assert (record["state"], record["reason"]) == ("ERROR", "owner_lost")


# The index of leases, which must not forget a running session.


async def test_a_late_finish_does_not_take_the_next_run_out_of_the_index(
    backend: RedisInterruptBackend, probe: Probe
) -> None:
    first = await own(backend)
    await backend.finish(first, RETURNED)
    second = await own(backend, fresh_lease(first.key))
    await backend.finish(first, RETURNED)
    assert await probe.indexed(second.key) is not None


async def test_a_refused_claim_does_not_put_off_the_reaper(backend: RedisInterruptBackend, probe: Probe) -> None:
    lease = await own(backend)
    shard = f"{probe.prefix}:lease:{int(lease.key.digest[0], 16)}"
    await probe.client.call("ZINCRBY", shard, -10_000, lease.key.digest)
    assert isinstance(await backend.claim(fresh_lease(lease.key)), Busy)
    left = await probe.indexed(lease.key)
    assert left is not None
    assert 0 < left < 5.1


async def test_a_claim_between_look_and_settling_stays_in_the_index(
    backend: RedisInterruptBackend, probe: Probe
) -> None:
    """The reaper saw an idle session, and before it forgets that one, the session is claimed."""
    lease = await own(backend)
    await backend.finish(lease, RETURNED)
    digest = lease.key.digest
    shard = backend.layout.shard_of(digest)
    await probe.client.call("ZADD", shard, 1, digest)
    assert [digest.encode()] == await _run(probe, backend._scripts.index(shard, "due", 10))
    assert await _run(probe, backend._scripts.bind("reap", digest)) == 0
    await own(backend, fresh_lease(lease.key))
    await _run(probe, backend._scripts.index(shard, "settle", digest))
    assert await probe.indexed(lease.key) is not None


async def _run(probe: Probe, call):
    [answer] = await probe.client.pipeline([call])
    return answer


async def test_the_reaper_goes_on_until_nothing_is_due(
    one_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_agentapp.interrupts.reaper.AT_MOST", 2)
    quick = attrs.evolve(TIMINGS, reaper=1.0)
    async with open_backend(one_server, timings=quick) as backend, open_probe(one_server, backend) as probe:
        # All in one shard of the index.
        shard = backend.layout.shard(3)
        digests = [f"3{number:031x}" for number in range(15)]
        await probe.client.call("ZADD", shard, *(word for digest in digests for word in (1, digest)))
        looks: list[float] = []
        inner = backend.link.client.pipeline

        async def count(calls, **options):
            if any("due" in getattr(call, "arguments", ()) and shard in call.arguments for call in calls):
                looks.append(trio.current_time())
            return await inner(calls, **options)

        monkeypatch.setattr(backend.link.client, "pipeline", count)
        await until(lambda: looks)
        await until_async(lambda: _is_not(_score(probe, shard, digests[-1])))
        # One round: 7 times two, and a last one.
        assert len(looks) == 8
        assert looks[-1] - looks[0] < 0.7 * quick.reaper


async def _score(probe: Probe, shard: str, member: str):
    return await probe.client.call("ZSCORE", shard, member)


# A stop that comes first, in two steps that may be torn apart.


async def test_a_stop_by_run_alone_survives_a_claim_that_breaks_off(one_server: RedisServer) -> None:
    """The claim has read the note of the stop, and its connection breaks before it can write the tombstone."""
    async with (
        FaultyProxy.open(one_server.port) as proxy,
        open_backend(one_server, timings=LONG, port=proxy.port) as backend,
    ):
        lease = fresh_lease()
        assert (await backend.request_stop(None, lease.run_id)).outcome is StopOutcome.PENDING
        inner, broken = backend.link.ask, []

        async def ask_once(*calls, **options):
            if "stop" in [name for name, script in backend._scripts._scripts.items() if script is calls[0].script]:
                broken.append(True)
                if len(broken) == 1:
                    raise LinkError("told to break", maybe_executed=False)
            return await inner(*calls, **options)

        backend.link.ask = ask_once  # type: ignore[method-assign]
        assert await backend.claim(lease) == Ended(RunState.STOPPED, "stopped_before_start")
        assert len(broken) == 2
        async with open_probe(one_server, backend) as probe:
            # Nothing of it is left to end a run of this id later.
            assert set(await probe.hash(f"run:{lease.run_id}")) == {"h", "user", "session"}
            assert await probe.keys() >= {f"{{{lease.key.digest}}}:r:{lease.run_id}"}


# Servers that are new, full, or have forgotten.


async def test_a_server_younger_than_a_lease_takes_no_claims() -> None:
    async with RedisServer() as server:
        timings = attrs.evolve(TIMINGS, claim_patience=0.05)
        backend = RedisInterruptBackend(server.url, prefix="p", timings=timings)
        assert backend.trouble == "Redis cannot be reached"
        async with serving(backend, settled=False), open_probe(server, backend) as probe:
            assert backend.trouble is not None
            assert re.fullmatch(
                r"Redis has just started or taken over; no new runs for another [01] s", backend.trouble
            )
            with pytest.raises(BackendUnavailable, match="has just started; nothing was started") as caught:
                await backend.claim(fresh_lease())
            assert caught.value.retry_after is not None
            assert 0 < caught.value.retry_after <= TIMINGS.lease
            assert await probe.keys() == set()
            # Everything else works.
            assert (await backend.status(SessionKey("a", "b"))).state is RunState.IDLE
            assert (await backend.request_stop(SessionKey("a", "b"))).outcome is StopOutcome.NOT_RUNNING
            await until(lambda: backend.trouble is None)
            await own(backend)


async def test_another_server_takes_no_claims_for_a_lease(caplog: pytest.LogCaptureFixture) -> None:
    """Restarted, without its data: what it has forgotten may still run. A claim that waits, waits for that too."""
    caplog.set_level(logging.WARNING, "trio_agentapp")
    async with RedisServer() as server, open_backend(server) as backend:
        signals: list[Signal] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(backend.listen, "node-1", signals.append)
            lease = await own(backend)
            await server.kill()
            await until(lambda: backend.trouble == "Redis cannot be reached")
            signals.clear()
            answers: list[object] = []

            async def claim() -> None:
                answers.append(await backend.claim(fresh_lease(lease.key, node_id="node-2")))

            nursery.start_soon(claim)
            before = trio.current_time()
            await server.restart()
            await until(lambda: "has just started or taken over" in (backend.trouble or ""))
            await until(lambda: Resync() in signals)
            assert await backend.heartbeat([lease]) == [Renewal.LOST]
            await until(lambda: answers)
            assert trio.current_time() - before >= TIMINGS.lease
            assert isinstance(answers[0], Granted)
            assert answers[0].token > lease.token
            nursery.cancel_scope.cancel()
    assert "no new runs for" in caplog.text


async def test_the_same_server_is_trusted_after_a_broken_connection(one_server: RedisServer) -> None:
    async with (
        FaultyProxy.open(one_server.port) as proxy,
        open_backend(one_server, timings=TIMINGS, port=proxy.port) as backend,
    ):
        signals: list[Signal] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(backend.listen, "node-1", signals.append)
            lease = await own(backend)
            signals.clear()
            proxy.cut()
            await until(lambda: Resync() in signals)
            assert await backend.heartbeat([lease]) == [Renewal.OK]
            assert backend.trouble is None
            nursery.cancel_scope.cancel()


async def test_a_claim_is_tried_again_with_its_nonce(one_server: RedisServer) -> None:
    """Its answer is lost; the server has executed it. The second try gets the session, not Busy."""
    async with (
        FaultyProxy.open(one_server.port) as proxy,
        open_backend(one_server, timings=NO_REAPER, port=proxy.port) as backend,
        open_probe(one_server, backend) as probe,
    ):
        lease = fresh_lease()
        answers: list[object] = []

        async def claim() -> None:
            answers.append(await backend.claim(lease))

        async with trio.open_nursery() as nursery:
            inner = backend.link.client.pipeline

            async def hold_the_claim(calls, **options):
                if getattr(calls[0], "script", None) is backend._scripts._scripts["claim"]:
                    backend.link.client.pipeline = inner  # type: ignore[method-assign]
                    proxy.hold_replies()
                return await inner(calls, **options)

            backend.link.client.pipeline = hold_the_claim  # type: ignore[method-assign]
            nursery.start_soon(claim)
            await until_async(lambda: probe.session(lease.key))
            token = (await probe.session(lease.key))["tok"]
            proxy.restore()
            proxy.cut()
        assert answers == [Granted(int(token))]


async def test_without_a_server_every_operation_says_so() -> None:
    timings = attrs.evolve(TIMINGS, claim_patience=0.3, call_timeout=0.1)
    async with RedisServer() as server, open_backend(server, timings=timings) as backend:
        lease = await own(backend)
        await server.kill()
        with pytest.raises(BackendUnavailable, match="could not be claimed; nothing was started"):
            await backend.claim(fresh_lease())
        with pytest.raises(BackendUnavailable, match="could not be renewed"):
            await backend.heartbeat([lease])
        with pytest.raises(BackendUnavailable, match="could not be delivered"):
            await backend.request_stop(lease.key)
        with pytest.raises(BackendUnavailable, match="could not be written"):
            await backend.finish(lease, RETURNED)
        with pytest.raises(BackendUnavailable, match="could not be looked up"):
            await backend.status(lease.key)
        with pytest.raises(BackendUnavailable, match="could not be looked up") as caught:
            await backend.run_status(lease.run_id)
        assert isinstance(caught.value.__cause__, LinkError)


async def test_what_the_server_refuses_becomes_our_error(
    backend: RedisInterruptBackend, probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    """As a replica does that was a primary, or one that loads its data: it may pass, so it is tried again."""
    lease = await own(backend)
    wrong = f"{probe.prefix}:{{{lease.key.digest}}}:s"
    await probe.client.call("SET", wrong, "not a hash", "PX", 60_000)
    for operation in (
        lambda: backend.heartbeat([lease]),
        lambda: backend.request_stop(lease.key),
        lambda: backend.finish(lease, RETURNED),
        lambda: backend.status(lease.key),
        lambda: backend.run_status(lease.run_id),
    ):
        with pytest.raises(BackendUnavailable):
            await operation()
    assert caplog.text.count("Redis refused:") == 5
    # A claim goes on trying, and gets there.
    answers: list[object] = []
    async with trio.open_nursery() as nursery:

        async def claim() -> None:
            answers.append(await backend.claim(fresh_lease(lease.key)))

        nursery.start_soon(claim)
        await trio.testing.wait_all_tasks_blocked()
        await probe.client.call("DEL", wrong)
    assert isinstance(answers[0], Granted)


POLICIES = [
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
]


async def test_a_server_that_evicts_is_refused(kind_server: RedisServer) -> None:
    """Also where only keys with an end are evicted: all of ours have one."""
    async with RedisClient.open(kind_server.url) as client:
        for policy in POLICIES:
            await client.call("CONFIG SET", "maxmemory-policy", policy)
            with pytest.raises(ConfigurationError) as caught:
                async with serving(RedisInterruptBackend(kind_server.url)):
                    raise AssertionError(policy)
            assert str(caught.value) == (
                f"this Redis evicts keys when it is full (maxmemory-policy {policy}), so running sessions could be "
                "lost; set maxmemory-policy to noeviction, or use another server for interrupts"
            )
        await client.call("CONFIG SET", "maxmemory-policy", "noeviction")
        async with serving(RedisInterruptBackend(kind_server.url, timings=TIMINGS)):
            pass


@pytest.fixture(params=installed_kinds())
async def kind_server(request: pytest.FixtureRequest) -> AsyncIterator[RedisServer]:
    """A fresh one, for what changes its configuration."""
    async with RedisServer(request.param) as server:
        yield server


async def test_a_full_server_takes_no_new_runs(kind_server: RedisServer) -> None:
    """And those that run go on: renewed, stopped, finished, reaped, looked at, where scripts may say so."""
    server = kind_server
    async with open_backend(server) as backend, open_probe(server, backend) as probe:
        leases = [await own(backend) for _ in range(3)]
        await probe.client.call("CONFIG SET", "maxmemory", "1")
        before = trio.current_time()
        with pytest.raises(BackendUnavailable, match="is full; nothing was started"):
            await backend.claim(fresh_lease())
        assert trio.current_time() - before < 1  # at once
        with pytest.raises(BackendUnavailable):
            await backend.request_stop(None, "unknown-run-1")
        lost, reaped, mine = leases
        if server.kind != "redis6":
            assert await backend.heartbeat([mine]) == [Renewal.OK]
            assert (await backend.request_stop(mine.key)).outcome is StopOutcome.ACCEPTED
            assert (await backend.request_stop(None, mine.run_id)).outcome is StopOutcome.ACCEPTED
            assert await backend.heartbeat([mine]) == [Renewal.STOP]
            assert (await backend.finish(mine, RETURNED)).state is RunState.FINISHED
            await probe.wait_expired(lost.key)
            assert (await backend.status(lost.key)).state is RunState.ERROR

            async def is_reaped() -> bool:
                return (await probe.record(reaped))["state"] == "ERROR"

            await until_async(is_reaped)
        else:
            # An old server refuses renewals, and keeps what it has. Reaping frees memory first: that it takes.
            with pytest.raises(BackendUnavailable):
                await backend.heartbeat([mine])
            await probe.wait_expired(mine.key)

            async def is_ended() -> bool:
                return (await probe.record(mine))["state"] == "ERROR"

            await until_async(is_ended)
        await probe.client.call("CONFIG SET", "maxmemory", "0")
        await own(backend)


async def test_scripts_survive_a_flush_of_scripts(server: RedisServer) -> None:
    async with open_backend(server, timings=LONG) as backend, open_probe(server, backend) as probe:

        async def forget() -> None:
            await probe.client.call("SCRIPT FLUSH")

        await forget()
        lease = await own(backend)
        await forget()
        assert await backend.heartbeat([lease, lease]) == [Renewal.OK, Renewal.OK]
        await forget()
        assert (await backend.request_stop(lease.key)).outcome is StopOutcome.ACCEPTED
        await forget()
        assert (await backend.status(lease.key)).state is RunState.RUNNING
        await forget()
        assert (await backend.finish(lease, RETURNED)).state is RunState.FINISHED
        await forget()
        record = await backend.run_status(lease.run_id)
        assert record is not None
        assert record.state is RunState.FINISHED


async def test_many_leases_are_renewed_in_order(backend: RedisInterruptBackend, monkeypatch) -> None:
    monkeypatch.setattr("trio_agentapp.interrupts.redis.HEARTBEATS_AT_ONCE", 3)
    leases = [await own(backend) for _ in range(8)]
    await backend.request_stop(leases[4].key)
    await backend.finish(leases[6], RETURNED)
    answers = await backend.heartbeat(leases)
    expected = [Renewal.OK] * 8
    expected[4], expected[6] = Renewal.STOP, Renewal.LOST
    assert answers == expected


async def test_a_backend_may_be_served_again(one_server: RedisServer) -> None:
    backend = RedisInterruptBackend(one_server.url, prefix=fresh_prefix(), timings=NO_REAPER)
    async with serving(backend):
        lease = await own(backend)
    assert backend.trouble == "Redis cannot be reached"
    async with serving(backend):
        assert await backend.heartbeat([lease]) == [Renewal.OK]


# Two nodes, each with its registry.


@asynccontextmanager
async def open_node(
    server: RedisServer, prefix: str, name: str, *, timings: Timings = TIMINGS
) -> AsyncIterator[RunRegistry]:
    backend = RedisInterruptBackend(server.url, prefix=prefix, timings=timings)
    if timings is not TIMINGS:
        backend._quarantine._lease = 0.0
    registry = RunRegistry(backend, node_id=name, cleanup_budget=5.0)
    async with registry.open():
        await until(lambda: backend.trouble is None)
        yield registry


async def start(registry: RunRegistry, key: SessionKey, fn) -> Run:
    run = Run(run_id=fresh_lease().run_id, key=key, on_disconnect="continue")
    await registry.start(run, Handler(fn), {"run": run})
    return run


async def test_a_stop_reaches_a_run_on_another_node(server: RedisServer) -> None:
    """Through the wake-up, long before a heartbeat; and `wait` answers when nothing of it runs any more."""
    prefix, key = fresh_prefix(), SessionKey("ann", "chat")
    left: list[float] = []

    async def handler(run: Run) -> None:
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(0.1)
            left.append(trio.current_time())

    slow = Timings()
    async with (
        open_node(server, prefix, "one", timings=slow) as one,
        open_node(server, prefix, "two", timings=slow) as two,
    ):
        run = await start(one, key, handler)
        asked = trio.current_time()
        receipt = await stop_run(two, two._backend, key, wait=True)
        answered = trio.current_time()
        assert answered - asked < slow.heartbeat / 2
        assert (receipt.accepted, receipt.stopped, receipt.node) == (True, True, "one")
        assert (receipt.state, receipt.cleanup.value) == (RunState.STOPPED, "done")
        assert left
        assert left[0] <= answered
        await run.ended.wait()
        await (await start(two, key, _nothing)).ended.wait()


async def _nothing() -> None:
    pass


async def test_a_run_lives_through_connections_that_break(one_server: RedisServer) -> None:
    """Cut twice in each lease, for two leases: the run never notices."""
    prefix, key = fresh_prefix(), SessionKey("ann", "chat")
    async with FaultyProxy.open(one_server.port) as proxy:
        backend = RedisInterruptBackend(one_server.url_for(port=proxy.port), prefix=prefix, timings=TIMINGS)
        registry = RunRegistry(backend, node_id="one", cleanup_budget=1.0)
        async with registry.open():
            await until(lambda: backend.trouble is None)
            run = await start(registry, key, trio.sleep_forever)
            for _ in range(4):
                await trio.sleep(TIMINGS.lease / 2)
                proxy.cut()
            assert not run.stopping
            await run_ends(registry, run)


async def run_ends(registry: RunRegistry, run: Run) -> None:
    receipt = await stop_run(registry, registry._backend, run.key, wait=True)
    assert receipt.stopped


async def test_a_node_that_is_cut_off_ends_its_run_before_another_takes_it(one_server: RedisServer) -> None:
    """S1, over a black hole: the body ends by F, and only after L the session is granted again."""
    prefix, key = fresh_prefix(), SessionKey("ann", "chat")
    ended: list[float] = []

    async def handler() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with FaultyProxy.open(one_server.port) as proxy, open_node(one_server, prefix, "two") as two:
        backend = RedisInterruptBackend(one_server.url_for(port=proxy.port), prefix=prefix, timings=TIMINGS)
        registry = RunRegistry(backend, node_id="one", cleanup_budget=1.0)
        async with registry.open():
            await until(lambda: backend.trouble is None)
            run = await start(registry, key, handler)
            proxy.blackhole()
            cut_at = trio.current_time()
            lease = fresh_lease(key, node_id="two")
            with trio.fail_after(10):
                while not isinstance(answer := await two._backend.claim(lease), Granted):
                    assert isinstance(answer, Busy)
                    await trio.sleep(0.01)
            granted_at = trio.current_time()
            await until(lambda: ended)
            assert ended[0] <= cut_at + TIMINGS.cutoff + 0.2
            assert ended[0] < granted_at
            await run.ended.wait()
            assert run.lifecycle.ending is not None
            assert run.lifecycle.ending == Ending(cause=Cause.LEASE_LOST)
            proxy.restore()
        record = await two._backend.run_status(run.run_id)
        assert record is not None
        assert (record.state, record.reason) == (RunState.ERROR, "owner_lost")
        taken = attrs.evolve(lease, token=answer.token)
        assert await two._backend.heartbeat([taken]) == [Renewal.OK]


async def test_lists_go_on_after_runs_that_are_forgotten(one_server: RedisServer) -> None:
    async with open_backend(one_server, timings=LONG) as backend, open_probe(one_server, backend) as probe:
        leases = [await own(backend, fresh_lease(SessionKey("ann", f"s{number}"))) for number in range(8)]
        for lease in leases:
            name = probe.prefix + f":{{{lease.key.digest}}}:r:{lease.run_id}"
            if lease not in (leases[0], leases[1], leases[6]):
                await probe.client.call("DEL", name)
        found: list[str] = []
        before, pages = None, 0
        while True:
            records, before = await backend.list_runs("ann", before=before, limit=2)
            pages += 1
            found += [record.run_id for record in records]
            if before is None:
                break
        assert sorted(found) == sorted(lease.run_id for lease in (leases[0], leases[1], leases[6]))
        # What is gone leaves the index, but for those where a page ended.
        assert await probe.client.call("ZCARD", backend.layout.user("ann")) <= len(found) + pages - 1


async def test_the_index_of_a_user_is_bounded(one_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_agentapp.interrupts.redis.MAX_LISTED", 3)
    async with open_backend(one_server, timings=LONG) as backend, open_probe(one_server, backend) as probe:
        for number in range(6):
            await own(backend, fresh_lease(SessionKey("ann", f"s{number}")))
        assert await probe.client.call("ZCARD", backend.layout.user("ann")) == 3
        name = backend.layout.user("ann").removeprefix(f"{probe.prefix}:")
        assert 3600 - 60 < await probe.time_left(name) <= 3600


async def test_keys_are_kept_for_an_hour(one_server: RedisServer) -> None:
    async with open_backend(one_server, timings=LONG) as backend, open_probe(one_server, backend) as probe:
        await backend.pin("some key", "value")
        [name] = [name for name in await probe.keys() if name.startswith("pin:")]
        assert "some key" not in name
        assert 3600 - 60 < await probe.time_left(name) <= 3600
        await backend.unpin("some key", "value")
        assert await probe.keys() == set()


async def test_input_is_told_to_the_owner_and_refused_after_its_lease(one_server: RedisServer) -> None:
    async with open_backend(one_server, timings=NO_REAPER) as backend, open_probe(one_server, backend) as probe:
        lease = await own(backend)
        told: list[Signal] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(backend.listen, lease.node_id, told.append)
            assert await backend.send_input(lease.key, lease.run_id, b"{}") is InputAnswer.OK
            await until(lambda: InputSignal(lease.run_id) in told)
            nursery.cancel_scope.cancel()
        await probe.wait_expired(lease.key)
        assert await backend.send_input(lease.key, lease.run_id, b"{}") is InputAnswer.GONE


async def test_a_place_of_a_dead_node_is_lost(one_server: RedisServer) -> None:
    async with open_backend(one_server, timings=NO_REAPER) as backend, open_probe(one_server, backend) as probe:
        owner = await own(backend)
        dead, alive = (fresh_lease(owner.key, place=Place.LAST) for _ in range(2))
        assert await backend.claim(dead) == Queued(owner.run_id, 0)
        assert await backend.claim(alive) == Queued(owner.run_id, 1)

        async def is_first() -> bool:
            await backend.heartbeat([owner])
            return await backend.claim(alive) == Queued(owner.run_id, 0)

        async def is_forgotten() -> bool:
            return await probe.record(dead) == {}

        await until_async(is_first)
        # Its record ends by itself, to the millisecond when its place does.
        await until_async(is_forgotten)
        await backend.finish(owner, RETURNED)
        await own(backend, alive)
