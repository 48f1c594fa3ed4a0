"""Events in Redis, on real servers: written, shown, read from another node, and what faults do to that."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from redis.exceptions import OutOfMemoryError

from trio_agentapp.abc import BaseInterruptBackend, EventStore, Extent, Lease, Renewal
from trio_agentapp.errors import BackendUnavailable
from trio_agentapp.events import redis as events_in_redis
from trio_agentapp.events import sink as sinks
from trio_agentapp.events.redis import RedisEventStore
from trio_agentapp.events.sink import RedisSink
from trio_agentapp.interrupts.redis import RedisInterruptBackend
from trio_agentapp.protocol.codec import encode_event
from trio_agentapp.protocol.events import ContentEvent, Event, ResponseEvent
from trio_agentapp.protocol.ids import SessionKey, new_run_id, new_session_id
from trio_agentapp.protocol.keys import Layout
from trio_agentapp.protocol.lifecycle import RunRecord
from trio_agentapp.protocol.message import Message
from trio_agentapp.protocol.message_json import encode_message
from trio_agentapp.protocol.timings import Timings
from trio_agentapp.redis import LinkError, LinkTimeout
from trio_agentapp.redis.serving import serving_in_background
from trio_agentapp.runs import Gap, Handler, Run, RunRegistry, Subscriber, stop_run
from trio_agentapp.runs.viewing import Viewing
from trio_agentapp.testing import Script, UnrulyBackend, check_event_store, say, wait
from trio_agentapp.testing.faulty_proxy import FaultyProxy
from trio_agentapp.testing.redis_server import RedisServer, installed_kinds

from ..interrupts.redis_house import (
    LONG,
    TIMINGS,
    fresh_lease,
    fresh_prefix,
    old_server,
    open_backend,
    own,
    until,
    until_async,
)

KIND = next(kind for kind in installed_kinds() if kind != "redis6")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with old_server(KIND) as server:
        yield server


@pytest.fixture(scope="module", params=installed_kinds())
def every_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with old_server(request.param) as server:
        yield server


@asynccontextmanager
async def open_store(backend: RedisInterruptBackend, node_id: str = "node-1") -> AsyncIterator[RedisEventStore]:
    store = RedisEventStore(backend.link, backend.layout, backend.timings, node_id=node_id)
    async with serving_in_background(store.serve):
        yield store


@asynccontextmanager
async def open_both(
    server: RedisServer, **options: Any
) -> AsyncIterator[tuple[RedisInterruptBackend, RedisEventStore]]:
    options.setdefault("timings", LONG)
    async with open_backend(server, **options) as backend, open_store(backend) as store:
        yield backend, store


class Writer:
    """The sink of a run that owns its session, and what comes of it."""

    def __init__(self, store: RedisEventStore, lease: Lease) -> None:
        self.lease = lease
        self.shown: list[int] = []
        self.heard: list[Renewal] = []
        self.sink = store.sink(lease, self._show, self.heard.append)
        self._next = 0

    def _show(self, events: Sequence[Event]) -> None:
        self.shown += [event.sequence_number for event in events]

    def put(self, count: int, size: int = 1) -> None:
        self.sink.put(
            [ContentEvent(self._next + i, "in_progress", "text", 0, True, "m", "x" * size) for i in range(count)]
        )
        self._next += count

    async def flushed(self) -> list[int]:
        with trio.fail_after(10):
            await self.sink.flush()
        return self.shown


async def all_of(store: RedisEventStore, lease: Lease, start: int = 0) -> list[int]:
    numbers: list[int] = []
    while batch := await store.read(lease.key, lease.run_id, start):
        numbers += [event.sequence_number for event in batch]
        start = numbers[-1] + 1
    return numbers


async def test_the_contract_of_event_stores(every_server: RedisServer) -> None:
    prefix = fresh_prefix()

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[EventStore, BaseInterruptBackend]]:
        backend = RedisInterruptBackend(every_server.url, prefix=prefix, timings=TIMINGS)
        yield RedisEventStore(backend.link, backend.layout, backend.timings, node_id=new_run_id()), backend

    assert await check_event_store(opened) == ["a_run_may_begin_late"]


async def test_what_is_shown_can_be_read_everywhere(every_server: RedisServer) -> None:
    prefix = fresh_prefix()
    async with (
        open_both(every_server, prefix=prefix) as (backend, store),
        open_both(every_server, prefix=prefix) as (_, there),
    ):
        writer = Writer(store, await own(backend))
        assert await there.extent(writer.lease.key, writer.lease.run_id) is None
        assert await there.read(writer.lease.key, writer.lease.run_id, 0) == []
        writer.put(150)
        assert await writer.flushed() == list(range(150))
        assert await all_of(there, writer.lease) == list(range(150))
        assert await all_of(there, writer.lease, 149) == [149]
        assert await all_of(there, writer.lease, 150) == []
        assert len(await there.read(writer.lease.key, writer.lease.run_id, 0)) == events_in_redis.READ_EVENTS
        extent = await there.extent(writer.lease.key, writer.lease.run_id)
        assert extent == Extent(first=0, end=150, ended=False)


async def test_a_stream_lives_no_longer_than_its_session(server: RedisServer) -> None:
    async with open_both(server) as (backend, store):
        writer = Writer(store, await own(backend))
        writer.put(1)
        await writer.flushed()
        left = await backend.link.client.call("PTTL", stream_of(backend, writer.lease))
        assert 0 < left <= backend.timings.session_ttl * 1000


async def test_a_batch_that_is_read_is_bounded_by_bytes_and_never_empty(server: RedisServer) -> None:
    async with open_both(server) as (backend, store):
        writer = Writer(store, await own(backend))
        writer.put(3, size=events_in_redis.READ_BYTES)
        await writer.flushed()
        assert len(await store.read(writer.lease.key, writer.lease.run_id, 0)) == 1
        assert await all_of(store, writer.lease) == [0, 1, 2]


async def test_what_is_read_is_what_was_put(server: RedisServer) -> None:
    async with open_both(server) as (backend, store):
        lease = await own(backend)
        shown: list[Event] = []
        sink = store.sink(lease, shown.extend, lambda _: None)
        assert isinstance(sink, RedisSink)
        events = [
            ResponseEvent(0, "created", "response_x", 1, session_id="ü\n"),
            ContentEvent(1, "in_progress", "data", 0, True, "m", payload={"data": {"a": [1, None, "ü"]}}),
        ]
        sink.put(events)
        await sink.flush()
        read = await store.read(lease.key, lease.run_id, 0)
        assert shown == read == events
        assert [encode_event(event) for event in read] == [encode_event(event) for event in events]


async def test_nobody_else_writes(server: RedisServer) -> None:
    async with open_both(server) as (backend, store):
        lease = await own(backend)
        writer = Writer(store, lease)
        stale = Writer(store, attrs.evolve(lease, token=lease.token - 1))
        other = Writer(store, attrs.evolve(lease, run_id=new_run_id()))
        for each in (writer, stale, other):
            each.put(2)
            await each.flushed()
        assert (writer.shown, writer.heard) == ([0, 1], [])
        assert (stale.shown, stale.heard) == ([], [Renewal.LOST])
        assert (other.shown, other.heard) == ([], [Renewal.LOST])
        assert await all_of(store, lease) == [0, 1]


async def test_a_stop_comes_back_with_the_answer(server: RedisServer) -> None:
    async with open_both(server) as (backend, store):
        writer = Writer(store, await own(backend))
        await backend.request_stop(writer.lease.key)
        writer.put(1)
        await writer.flushed()
        assert writer.heard == [Renewal.STOP]


async def test_lost_answers_write_nothing_twice(server: RedisServer) -> None:
    prefix = fresh_prefix()
    async with (
        FaultyProxy.open(server.port) as proxy,
        open_both(server, prefix=prefix, port=proxy.port, timings=TIMINGS) as (backend, store),
        open_both(server, prefix=prefix) as (_, there),
    ):
        writer = Writer(store, await own(backend))
        for total in (70, 140):
            proxy.hold_replies()
            writer.put(70)
            # The first batch is there, and nobody here knows.
            await until_async(partial(_arrived, there, writer.lease, total - 6))
            assert len(writer.shown) == total - 70
            proxy.cut()
            proxy.restore()
            await writer.flushed()
        assert writer.shown == await all_of(there, writer.lease) == list(range(140))


async def _arrived(store: RedisEventStore, lease: Lease, count: int) -> bool:
    extent = await store.extent(lease.key, lease.run_id)
    return extent is not None and extent.end >= count


async def test_each_event_is_told_to_those_who_watch(server: RedisServer) -> None:
    async with open_both(server) as (backend, store):
        writer = Writer(store, await own(backend))
        told: list[str] = []
        async with backend.watching(writer.lease.key, told.append):
            writer.put(1)
            await until(lambda: told)
        assert set(told) == {writer.lease.run_id}


def _flat(fields: Any) -> list[bytes]:
    return [part for pair in fields.items() for part in pair] if isinstance(fields, dict) else list(fields)


def stream_of(backend: RedisInterruptBackend, lease: Lease) -> str:
    return backend.layout.events(lease.key.digest, lease.run_id)


async def test_events_that_a_fail_over_lost_are_written_again(server: RedisServer) -> None:
    async with open_both(server) as (backend, store):
        writer = Writer(store, await own(backend))
        writer.put(100)
        await writer.flushed()
        name = stream_of(backend, writer.lease)
        [kept] = await backend.link.ask(("XRANGE", name, "-", "+", "COUNT", "98"))
        await backend.link.ask(("DEL", name), *[("XADD", name, id, *_flat(fields)) for id, fields in kept])
        writer.put(1)
        await writer.flushed()
        assert writer.shown == await all_of(store, writer.lease) == list(range(101))
        await backend.link.ask(("DEL", name))
        writer.put(1)
        await writer.flushed()
        assert writer.shown == await all_of(store, writer.lease) == list(range(102))


async def test_a_hole_parts_two_batches(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "RING", 3)
    async with open_both(server) as (backend, store):
        writer = Writer(store, await own(backend))
        writer.put(10)
        await writer.flushed()
        name = stream_of(backend, writer.lease)
        await backend.link.ask(("DEL", name), ("XADD", name, "1-0", "e", _encoded(0)))
        writer.put(1)
        await writer.flushed()
        batches = [await store.read(writer.lease.key, writer.lease.run_id, start) for start in (0, 1, 7, 11)]
        assert [[event.sequence_number for event in batch] for batch in batches] == [
            [0],
            [7, 8, 9, 10],
            [7, 8, 9, 10],
            [],
        ]


def _encoded(number: int) -> bytes:
    return encode_event(ContentEvent(number, "in_progress", "text", 0, True, "m", "x"))


async def test_old_events_of_a_long_run_are_trimmed(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "KEPT_WEIGHT", 50_000)
    async with open_both(server) as (backend, store):
        writer = Writer(store, await own(backend))
        for _ in range(20):
            writer.put(20, size=100)
            await writer.flushed()
        extent = await store.extent(writer.lease.key, writer.lease.run_id)
        assert extent is not None
        assert 0 < extent.first < extent.end == 400
        assert await all_of(store, writer.lease) == list(range(extent.first, 400))


async def test_a_server_that_is_full_shows_nothing_until_there_is_room(server: RedisServer) -> None:
    async with open_both(server) as (backend, store):
        writer = Writer(store, await own(backend))
        await backend.link.ask(("CONFIG", "SET", "maxmemory", "1"))
        try:
            writer.put(3)
            await until(lambda: writer.sink.trouble)
            assert writer.shown == []
        finally:
            await backend.link.ask(("CONFIG", "SET", "maxmemory", "0"))
        assert await writer.flushed() == [0, 1, 2]


async def test_a_run_ends_on_a_server_that_is_full(server: RedisServer) -> None:
    async with open_backend(server, timings=TIMINGS) as backend:
        store = RedisEventStore(backend.link, backend.layout, backend.timings, node_id="node-1")
        async with open_node(backend, store) as (registry, viewing):
            run = await start(registry, Script(say("a"), wait()))
            await until(lambda: run.log.end > 3)
            await backend.link.ask(("CONFIG", "SET", "maxmemory", "1"))
            try:
                with trio.fail_after(8):
                    await run.emit("never seen")
                    receipt = await stop_run(registry, backend, run.key, run.run_id, wait=True)
                assert receipt.stopped
            finally:
                await backend.link.ask(("CONFIG", "SET", "maxmemory", "0"))
            here = await numbers_of(run.log.subscribe())
            record = await backend.run_status(run.run_id)
            assert record is not None
            assert (record.state, record.reason) == ("STOPPED", "stopped")
            reader = await viewing.attach(record)
            assert reader is not None
            assert here == await numbers_of(reader) == list(range(len(here)))


async def test_a_server_that_dies_and_comes_back(tmp_path: Any) -> None:
    async with RedisServer(KIND) as server, open_both(server) as (backend, store):
        writer = Writer(store, lease := await own(backend))
        writer.put(5)
        await writer.flushed()
        session = await backend.link.client.call("HGETALL", backend.layout.session(lease.key.digest))
        await server.kill()
        writer.put(5)
        await until(lambda: not store._reachable)
        assert writer.shown == list(range(5))
        with pytest.raises(BackendUnavailable):
            await store.read(lease.key, lease.run_id, 0)
        with pytest.raises(BackendUnavailable):
            await store.extent(lease.key, lease.run_id)
        with pytest.raises(BackendUnavailable):
            await store.unwatched([run_of(lease)])
        await server.restart()
        fields = [part for pair in session.items() for part in pair]

        async def is_back() -> bool:
            try:
                await backend.link.ask(("HSET", backend.layout.session(lease.key.digest), *fields))
            except Exception:
                return False
            return True

        await until_async(is_back)
        # It may have been asked before it knew the session again.
        if writer.heard != [Renewal.LOST]:
            assert await writer.flushed() == list(range(10))
            assert await all_of(store, lease) == list(range(10))


async def test_killed_connections(server: RedisServer) -> None:
    async with open_both(server) as (backend, store):
        writer = Writer(store, await own(backend))
        async with trio.open_nursery() as nursery:

            async def kill() -> None:
                for _ in range(5):
                    await backend.link.client.pipeline([("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")])

            nursery.start_soon(kill_safely, kill)
            for _ in range(20):
                writer.put(10)
                await trio.sleep(0.005)
        assert await writer.flushed() == list(range(200))
        assert await all_of(store, writer.lease) == list(range(200))


async def kill_safely(kill: Callable[[], Any]) -> None:
    with contextlib.suppress(LinkError):
        await kill()


# Who watches.


def run_of(lease: Lease) -> tuple[SessionKey, str]:
    return lease.key, lease.run_id


async def test_attendance_across_two_nodes(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_in_redis, "ATTENDANCE", 0.05)
    monkeypatch.setattr(events_in_redis, "ATTENDANCE_COUNTS", 0.3)
    async with open_both(server) as (backend, store), open_store(backend, "node-2") as other:
        lease, stranger = fresh_lease(), fresh_lease()
        assert await store.unwatched([run_of(lease), run_of(stranger)]) == [math.inf, math.inf]
        async with store.attending(lease.key, lease.run_id):
            async with store.attending(lease.key, lease.run_id), other.attending(lease.key, lease.run_id):
                assert await store.unwatched([run_of(lease), run_of(stranger)]) == [0.0, math.inf]
            # One of two here is left; signs of life go on for longer than one counts.
            await trio.sleep(0.5)
            assert await other.unwatched([run_of(lease)]) == [0.0]
        [gone] = await other.unwatched([run_of(lease)])
        assert 0.0 <= gone < 10.0
        assert store._attended == other._attended == {}


async def test_a_reader_that_is_cancelled_is_gone_at_once(server: RedisServer) -> None:
    async with open_both(server) as (_, store):
        lease = fresh_lease()
        with trio.CancelScope() as scope:
            async with store.attending(lease.key, lease.run_id):
                scope.cancel()
                await trio.lowlevel.checkpoint()
        await trio.sleep(0.002)
        [gone] = await store.unwatched([run_of(lease)])
        assert 0.0 < gone < 10.0


async def test_of_a_node_that_died_readers_count_for_a_while_only(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_in_redis, "ATTENDANCE", 0.05)
    async with open_both(server) as (backend, store):
        lease = fresh_lease()
        await store._report([store._attendance(lease.key.digest, lease.run_id, "here", "dead", 300)])
        assert await store.unwatched([run_of(lease)]) == [0.0]
        name = backend.layout.viewers(lease.key.digest, lease.run_id)
        assert 0 < await backend.link.client.call("PTTL", name) <= 600
        async with store.attending(lease.key, lease.run_id):

            async def is_over() -> bool:
                seconds, micros = await backend.link.client.call("TIME")
                return (
                    float(await backend.link.client.call("ZSCORE", name, "dead")) < seconds * 1000 + micros / 1000
                )

            await until_async(is_over)
        await trio.sleep(0.002)
        [gone] = await store.unwatched([run_of(lease)])
        assert 0.0 < gone < 10.0


# One run that fails harms no other: the writer, on a virtual clock, over a link that does as it is told.


class Link:
    def __init__(self) -> None:
        self.client = self
        self.plan: list[Any] = []
        self.calls: list[int] = []

    async def pipeline(self, calls: Sequence[Any]) -> list[Any]:
        await trio.lowlevel.checkpoint()
        self.calls.append(len(calls))
        answer = self.plan.pop(0) if self.plan else [b"OK"]
        if callable(answer):
            return await answer(calls)
        return [answer] * len(calls)


async def _time_out(calls: Sequence[Any]) -> list[Any]:
    await trio.sleep(2)
    raise LinkTimeout("slow")


def writers(store: RedisEventStore, count: int) -> list[Writer]:
    return [Writer(store, fresh_lease(token=1)) for _ in range(count)]


async def test_no_run_is_forgotten_when_a_call_fails_while_another_one_pauses(
    autojump_clock: trio.testing.MockClock,
) -> None:
    link = Link()
    store = RedisEventStore(link, Layout("t"), Timings(), node_id="n")  # type: ignore[arg-type]

    async with serving_in_background(store.serve):
        refused, other = writers(store, 2)
        link.plan = [OutOfMemoryError("full"), _time_out]
        refused.put(1)
        await trio.sleep(0.1)
        other.put(1)
        with trio.fail_after(60):
            await other.sink.flush()
            await refused.sink.flush()


async def test_a_run_that_cannot_be_shown_ends_alone(autojump_clock: trio.testing.MockClock) -> None:
    link = Link()
    store = RedisEventStore(link, Layout("t"), Timings(), node_id="n")  # type: ignore[arg-type]

    def fail(_events: Sequence[Event]) -> None:
        raise RuntimeError("a bug")

    async with serving_in_background(store.serve):
        broken = store.sink(fresh_lease(token=1), fail, lambda _: None)
        [well] = writers(store, 1)
        batches = 2 * sinks.BATCH_EVENTS
        broken.put([ContentEvent(n, "in_progress", "text", 0, True, "m", "x") for n in range(batches)])
        well.put(3)
        with trio.fail_after(5):
            assert await well.flushed() == [0, 1, 2]
            await broken.flush()


async def test_runs_are_written_together_and_in_parts(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_in_redis, "SINKS_AT_ONCE", 3)
    link = Link()
    store = RedisEventStore(link, Layout("t"), Timings(), node_id="n")  # type: ignore[arg-type]
    async with serving_in_background(store.serve):
        many = writers(store, 7)
        for each in many:
            each.put(2)
        for each in many:
            assert await each.flushed() == [0, 1]
        assert link.calls == [3, 3, 1]
        # After a call that failed, none of those that were to follow it is forgotten.
        link.plan = [_time_out]
        for each in many:
            each.put(1)
        for each in many:
            assert await each.flushed() == [0, 1, 2]


# Whole nodes.


@asynccontextmanager
async def open_node(
    backend: RedisInterruptBackend, store: RedisEventStore, node_id: str = "node-1"
) -> AsyncIterator[tuple[RunRegistry, Viewing]]:
    """A registry over a backend that is served already."""
    registry = RunRegistry(_Served(backend), store=store, node_id=node_id, cleanup_budget=2.0)
    async with registry.open():
        yield registry, Viewing(registry, backend, store)


class _Served(UnrulyBackend):
    """A backend that is served already."""

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()


async def start(registry: RunRegistry, fn: Any, *, strategy: Any = "reject", **options: Any) -> Run:
    options.setdefault("key", SessionKey("ann", new_session_id()))
    run = Run(run_id=new_run_id(), cleanup_budget=2.0, on_disconnect="continue", **options)
    await registry.start(run, Handler(fn), {"run": run, "msgs": []}, strategy=strategy)
    return run


async def numbers_of(reader: Subscriber) -> list[int]:
    """The numbers of what a reader gets, to its end."""
    numbers: list[int] = []
    last: Any = None
    with reader, trio.fail_after(15):
        try:
            while True:
                for last in await reader.receive():
                    assert not isinstance(last, Gap), (last, numbers)
                    numbers.append(last.sequence_number)
        except trio.EndOfChannel:
            pass
    assert isinstance(last, ResponseEvent)
    assert last.terminal
    return numbers


@asynccontextmanager
async def two_nodes(server: RedisServer, timings: Timings = LONG) -> AsyncIterator[Any]:
    prefix = fresh_prefix()
    async with (
        open_backend(server, prefix=prefix, timings=timings) as here,
        open_backend(server, prefix=prefix, timings=timings) as there,
    ):
        stores = [RedisEventStore(b.link, b.layout, timings, node_id=n) for b, n in ((here, "a"), (there, "b"))]
        async with open_node(here, stores[0], "a") as a, open_node(there, stores[1], "b") as b:
            yield (here, *a), (there, *b)


async def record_of(backend: RedisInterruptBackend, run: Run) -> RunRecord:
    record = await backend.run_status(run.run_id)
    assert record is not None
    return record


async def test_readers_on_both_nodes_see_the_same(server: RedisServer) -> None:
    async def chat(run: Run) -> AsyncIterator[str]:
        for number in range(150):
            yield f"{number} "
            if number % 10 == 0:
                await trio.sleep(0.002)

    async with two_nodes(server) as ((_, registry, viewing), (there, _, elsewhere)):
        run = await start(registry, chat)
        record = await record_of(there, run)
        async with trio.open_nursery() as nursery:
            seen: dict[str, list[int]] = {}

            async def read(name: str, view: Viewing) -> None:
                reader = await view.attach(record)
                assert reader is not None
                seen[name] = await numbers_of(reader)

            for name, view in (("here", viewing), ("there", elsewhere), ("there too", elsewhere)):
                nursery.start_soon(read, name, view)
        assert seen["here"] == seen["there"] == seen["there too"] == list(range(len(seen["here"])))
        for after in (-1, 0, 70, len(seen["here"]) - 2):
            for view in (viewing, elsewhere):
                reader = await view.attach(await record_of(there, run), after)
                assert reader is not None
                assert await numbers_of(reader) == seen["here"][after + 1 :]
        assert await elsewhere.attach(await record_of(there, run), seen["here"][-1]) is None
        with await elsewhere.attach_end(await record_of(there, run)) as reader:
            [last] = await reader.receive()
            assert isinstance(last, ResponseEvent)
            assert last.status == "completed"


async def test_a_waiting_run_that_is_stopped_is_told_whole_everywhere(server: RedisServer) -> None:
    async with two_nodes(server) as ((here, registry, _), (there, _, elsewhere)):
        first = await start(registry, Script(wait()))
        queued = await start(registry, Script(say("never")), strategy="enqueue", key=first.key)
        await stop_run(registry, here, queued.key, queued.run_id, wait=True)
        seen = await numbers_of(queued.log.subscribe())
        reader = await elsewhere.attach(await record_of(there, queued))
        assert reader is not None
        assert await numbers_of(reader) == seen == [0, 1, 2]


async def test_a_session_that_is_taken_away_leaves_no_hole(server: RedisServer) -> None:
    async with two_nodes(server) as ((here, registry, _), (there, _, elsewhere)):
        run = await start(registry, Script(say("a"), wait()))
        await until(lambda: run.log.end > 3)
        end = run.log.end
        session = here.layout.session(run.key.digest)
        # As if it had been reaped, with its last events on their way.
        await here.link.ask(("HSET", session, "exp", "1"))
        await there.run_status(run.run_id)
        await run.emit("b")
        await run.emit("c")
        with trio.fail_after(10):
            await run.ended.wait()
        assert await numbers_of(run.log.subscribe()) == list(range(end + 1))
        reader = await elsewhere.attach(await record_of(there, run))
        assert reader is not None
        assert await numbers_of(reader) == list(range(end + 1))


async def test_input_arrives_once_although_answers_are_lost(server: RedisServer) -> None:
    """Sent on one node, received on another, whose connection loses answers."""
    prefix = fresh_prefix()
    timings = TIMINGS
    got: list[str] = []

    async def listening(run: Run) -> None:
        while len(got) < 9:
            got.append((await run.receive()).text)

    async with (
        FaultyProxy.open(server.port) as proxy,
        open_backend(server, prefix=prefix, timings=timings, port=proxy.port) as here,
        open_backend(server, prefix=prefix, timings=timings) as there,
    ):
        store = RedisEventStore(here.link, here.layout, timings, node_id="a")
        async with open_node(here, store, "a") as (registry, _):
            run = await start(registry, listening)
            for number in range(9):
                if number % 3 == 1:
                    proxy.hold_replies()
                await there.send_input(
                    run.key, run.run_id, encode_message(Message(role="user", content=str(number)))
                )
                if number % 3 == 1:
                    # It is asked for, and the answer is on its way.
                    await trio.sleep(0.05)
                    proxy.cut()
                    proxy.restore()
            with trio.fail_after(15):
                await run.ended.wait()
    assert got == [str(number) for number in range(9)]
