"""The state store of one process: copies, whole writes, fencing, bounds."""

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_agentapp.errors import StaleToken
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.protocol.ids import SessionKey, new_run_id
from trio_agentapp.protocol.lifecycle import Cause, CleanupResult
from trio_agentapp.runs import Handler, Run, RunRegistry, current_run
from trio_agentapp.stores import MemoryStateStore
from trio_agentapp.stores.memory import Entry

KEY = SessionKey("ann", "chat")


@pytest.fixture
def store() -> MemoryStateStore:
    return MemoryStateStore()


@pytest.fixture
async def registry() -> AsyncIterator[RunRegistry]:
    registry = RunRegistry(LocalInterruptBackend(), node_id="node", cleanup_budget=10.0)
    async with registry.open():
        yield registry


async def start(registry: RunRegistry, fn, key: SessionKey = KEY) -> Run:
    run = Run(run_id=new_run_id(), key=key, cleanup_budget=registry.cleanup_budget, on_disconnect="continue")
    await registry.start(run, Handler(fn), {"run": run})
    return run


async def test_what_is_saved_is_loaded(store) -> None:
    assert await store.load("ann", "chat") is None
    await store.save("ann", "chat", {"turn": 1})
    await store.save("ann", "chat", {"turn": 2, "notes": ["a"]})
    assert await store.load("ann", "chat") == {"turn": 2, "notes": ["a"]}
    assert await store.load("ann", "other") is None
    assert await store.load("bob", "chat") is None
    assert await store.delete("ann", "chat")
    assert not await store.delete("ann", "chat")
    assert await store.load("ann", "chat") is None


async def test_sessions_whose_ids_join_to_the_same_text_are_apart(store) -> None:
    await store.save("a:b", "c", {"n": 1})
    await store.save("a", "b:c", {"n": 2})
    assert await store.load("a:b", "c") == {"n": 1}


async def test_neither_writer_nor_reader_holds_the_kept_state(store) -> None:
    state = {"notes": ["a"]}
    await store.save("ann", "chat", state)
    state["notes"].append("b")
    loaded = await store.load("ann", "chat")
    assert loaded == {"notes": ["a"]}
    loaded["notes"].append("c")
    assert await store.load("ann", "chat") == {"notes": ["a"]}


@pytest.mark.parametrize("state", ["text", ["a"], None, 7, {"lock": object()}, {"generator": (x for x in "")}])
async def test_what_cannot_be_kept_is_refused_and_changes_nothing(store, state) -> None:
    await store.save("ann", "chat", {"turn": 1})
    with pytest.raises(TypeError):
        await store.save("ann", "chat", state)
    assert await store.load("ann", "chat") == {"turn": 1}


async def test_saves_in_a_plain_finally_of_a_stopped_run_are_whole(autojump_clock, registry, store) -> None:
    async def handler(run):
        try:
            await trio.sleep_forever()
        finally:
            await store.save(run.user_id, "first", {"n": 1})
            await store.save(run.user_id, "second", {"n": 2})
            await store.delete(run.user_id, "third")

    await store.save("ann", "third", {"n": 3})
    run = await start(registry, handler)
    await wait_all_tasks_blocked()
    run.scope.stop(Cause.STOPPED)
    await run.ended.wait()
    assert await store.load("ann", "first") == {"n": 1}
    assert await store.load("ann", "second") == {"n": 2}
    assert await store.load("ann", "third") is None
    assert run.lifecycle.ending.cause is Cause.STOPPED
    assert run.lifecycle.ending.cleanup is CleanupResult.DONE
    assert not run.lifecycle.ending.cleanup_interrupted


async def test_saves_outside_of_runs_are_whole_too(store) -> None:
    with trio.CancelScope() as scope:
        scope.cancel(reason="test")
        await store.save("ann", "chat", {"n": 1})
    assert await store.load("ann", "chat") == {"n": 1}


async def test_a_load_can_be_stopped(store) -> None:
    with trio.CancelScope() as scope:
        scope.cancel(reason="test")
        await store.load("ann", "chat")
    assert scope.cancelled_caught


async def test_a_run_that_lost_its_session_cannot_write(autojump_clock, registry, store) -> None:
    refused = []

    async def late(run):
        await trio.sleep(2)
        for write in (store.save("ann", "chat", {"by": "late"}), store.delete("ann", "chat")):
            try:
                await write
            except StaleToken as exc:
                refused.append(str(exc))
        await store.save("ann", "another", {"by": "late"})

    async def next_one(run):
        await store.save("ann", "chat", {"by": "next"})

    run = await start(registry, late)
    token, run.token = run.token, 1
    following = Run(run_id="next", key=KEY)
    following.token = token
    current = current_run.set(following)
    await next_one(following)
    current_run.reset(current)
    await run.ended.wait()
    assert len(refused) == 2
    assert refused[0].startswith("the run with token 1 lost its session")
    assert await store.load("ann", "chat") == {"by": "next"}
    assert await store.load("ann", "another") == {"by": "late"}


async def test_a_deleted_state_still_refuses_a_late_writer(store) -> None:
    old, new = Run(run_id="old", key=KEY), Run(run_id="new", key=KEY)
    old.token, new.token = 1, 2
    current = current_run.set(new)
    try:
        await store.save("ann", "chat", {"n": 1})
        await store.delete("ann", "chat")
        current_run.set(old)
        with pytest.raises(StaleToken):
            await store.save("ann", "chat", {"n": 0})
    finally:
        current_run.reset(current)
    assert await store.load("ann", "chat") is None


async def test_the_token_is_known_in_threads_and_children(registry, store) -> None:
    refused = []

    async def write() -> None:
        try:
            await store.save("ann", "chat", {"n": 0})
        except StaleToken:
            refused.append(1)

    def in_thread(run):
        trio.from_thread.run(write)

    async def in_child(run):
        run.start_soon(write)
        await trio.sleep(0.05)

    newer = Run(run_id="new", key=KEY)
    newer.token = 2**62
    current = current_run.set(newer)
    await store.save("ann", "chat", {"n": 1})
    current_run.reset(current)
    for fn in (in_thread, in_child):
        run = await start(registry, fn)
        await run.ended.wait()
    assert refused == [1, 1]


async def test_a_store_that_is_not_alone_says_so_once(caplog) -> None:
    store = MemoryStateStore(alone=False)
    await store.load("ann", "chat")
    assert not caplog.text
    for number in range(2):
        await store.save("ann", "chat", {"n": number})
    (record,) = caplog.records
    assert "set state_url" in record.getMessage()


async def test_the_store_is_bounded(caplog) -> None:
    store = MemoryStateStore(max_states=3)
    for number in range(3):
        await store.save("ann", str(number), {"n": number})
    await store.load("ann", "0")
    await store.save("ann", "3", {"n": 3})
    assert await store.load("ann", "1") is None
    assert [await store.load("ann", name) for name in "023"] == [{"n": 0}, {"n": 2}, {"n": 3}]
    assert "more than 3 sessions" in caplog.text


async def test_fences_are_bounded_too(caplog) -> None:
    store = MemoryStateStore(max_states=3)
    for number in range(10):
        await store.save("ann", str(number), {})
        await store.delete("ann", str(number))
    assert len(store._shelf._entries) == 3
    assert not caplog.text


async def test_bytes_are_bounded_too(caplog) -> None:
    store = MemoryStateStore(max_bytes=1000)
    for number in range(3):
        await store.save("ann", str(number), {"text": "x" * 400})
    await store.save("ann", "1", {"text": "x"})
    await store.save("ann", "3", {"text": "x" * 400})
    assert await store.load("ann", "0") is None
    assert [(await store.load("ann", name))["text"][0] for name in "123"] == ["x"] * 3
    assert caplog.text.count("oldest are forgotten") == 1
    assert store._shelf._total == sum(Entry.unpacked(kept).size for kept in store._shelf._entries.values())
