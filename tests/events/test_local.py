"""Events in memory: what is kept of ended runs, for how long, and how much."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import trio
from trio.testing import MockClock

from trio_agentapp.abc import Extent
from trio_agentapp.events import LocalEventStore
from trio_agentapp.events import local as local_events
from trio_agentapp.protocol.builder import ResponseBuilder
from trio_agentapp.protocol.codec import encode_event
from trio_agentapp.protocol.events import ContentEvent, Event
from trio_agentapp.protocol.ids import SessionKey

KEY = SessionKey("ann", "s")


def events(first: int, count: int, size: int = 0) -> list[Event]:
    return [ContentEvent(first + i, "in_progress", "text", 0, True, "m", "x" * size) for i in range(count)]


def numbers(batch: Sequence[Event]) -> list[int]:
    return [event.sequence_number for event in batch]


async def test_what_is_kept_is_read_in_batches() -> None:
    store = LocalEventStore()
    store.keep(KEY, "run", events(5, 600))
    assert await store.extent(KEY, "run") == Extent(first=5, end=605, ended=True)
    assert numbers(await store.read(KEY, "run", 0)) == list(range(5, 5 + local_events.BATCH))
    assert numbers(await store.read(KEY, "run", 7))[0] == 7
    assert numbers(await store.read(KEY, "run", 600)) == list(range(600, 605))
    assert list(await store.read(KEY, "run", 605)) == []


async def test_runs_are_known_by_session_and_id() -> None:
    store = LocalEventStore()
    store.keep(KEY, "run", events(0, 1))
    for key, run_id in ((KEY, "other"), (SessionKey("ann", "t"), "run"), (SessionKey("eve", "s"), "run")):
        assert await store.extent(key, run_id) is None
        assert list(await store.read(key, run_id, 0)) == []


async def test_the_first_end_stays_and_nothing_is_nothing() -> None:
    store = LocalEventStore()
    store.keep(KEY, "run", [])
    assert await store.extent(KEY, "run") is None
    store.keep(KEY, "run", events(0, 2))
    store.keep(KEY, "run", events(0, 9))
    assert await store.extent(KEY, "run") == Extent(first=0, end=2, ended=True)


async def test_what_is_kept_does_not_change_with_the_log() -> None:
    store, kept = LocalEventStore(), events(0, 2)
    store.keep(KEY, "run", kept)
    kept.clear()
    assert numbers(await store.read(KEY, "run", 0)) == [0, 1]


async def test_runs_are_forgotten_after_ten_minutes(autojump_clock: MockClock) -> None:
    store = LocalEventStore()
    store.keep(KEY, "early", events(0, 1))
    await trio.sleep(300)
    store.keep(KEY, "late", events(0, 1))
    await trio.sleep(299)
    assert await store.extent(KEY, "early") is not None
    await trio.sleep(1)
    assert await store.extent(KEY, "early") is None
    assert await store.extent(KEY, "late") is not None
    await trio.sleep(300)
    assert await store.extent(KEY, "late") is None
    assert store._usual.weight == 0
    assert not store._usual.runs


async def test_the_oldest_are_forgotten_when_there_are_too_many() -> None:
    store = LocalEventStore(max_weight=10_000)
    for number in range(20):
        store.keep(KEY, f"run-{number}", events(0, 1, size=800))
        assert store._usual.weight <= 10_000
    kept = [number for number in range(20) if await store.extent(KEY, f"run-{number}")]
    assert kept == list(range(10, 20))


async def test_one_run_does_not_push_out_half_of_all_others() -> None:
    store = LocalEventStore(max_weight=10_000)
    store.keep(KEY, "small", events(0, 4, size=800))
    store.keep(KEY, "large", events(0, 6, size=800))
    # Its end is kept, and the terminal event with it.
    assert await store.extent(KEY, "large") == Extent(first=1, end=6, ended=True)
    assert await store.extent(KEY, "small") is not None
    store.keep(KEY, "half", events(0, 5, size=800))
    assert await store.extent(KEY, "half") is not None


async def test_what_is_kept_is_nothing_that_the_garbage_collector_walks_and_read_as_it_was() -> None:
    store, builder = LocalEventStore(), ResponseBuilder("run-1", "s", created_at=1)
    kept = [*builder.start(), *builder.add("a line\nand \u2028 another")]
    kept += builder.add({"type": "data", "data": [1]})
    store.keep(KEY, "run-1", kept)
    gc.collect()
    assert not [part for entry in store._usual.runs.items() for part in entry if gc.is_tracked(part)]
    assert list(await store.read(KEY, "run-1", 0)) == kept
    assert [encode_event(event) for event in await store.read(KEY, "run-1", 2)] == list(map(encode_event, kept[2:]))


async def test_long_runs_are_read_in_batches_too() -> None:
    store, kept = LocalEventStore(), events(3, 600, size=300)
    store.keep(KEY, "run", kept)
    read: list[Event] = []
    while batch := await store.read(KEY, "run", 3 + len(read)):
        read += batch
    assert read == kept


async def test_a_store_that_is_not_shared_knows_of_no_readers_elsewhere() -> None:
    from trio_agentapp.abc import Lease

    store = LocalEventStore()
    lease = Lease(key=KEY, run_id="run", node_id="n", nonce="x")
    assert await store.unwatched([(lease.key, lease.run_id)] * 2) == [float("inf")] * 2
    assert store.sink(lease, lambda _: None, lambda _: None) is None
