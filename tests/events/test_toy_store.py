"""An event store that is not shared is one short class of three methods."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from trio_agentapp.abc import EventStore, Extent
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.protocol.events import Event
from trio_agentapp.protocol.ids import SessionKey, new_run_id, new_session_id
from trio_agentapp.runs import Handler, Run, RunRegistry
from trio_agentapp.runs.viewing import Viewing
from trio_agentapp.testing import Script, say


class ToyEventStore(EventStore):
    def __init__(self) -> None:
        self.events: dict[str, Sequence[Event]] = {}

    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        self.events.setdefault(run_id, events)

    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        if not (events := self.events.get(run_id)):
            return None
        return Extent(first=events[0].sequence_number, end=events[-1].sequence_number + 1, ended=True)

    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        return [event for event in self.events.get(run_id, ()) if event.sequence_number >= start]


async def test_a_run_is_read_after_its_end(autojump_clock: trio.testing.MockClock) -> None:
    backend, store = LocalInterruptBackend(), ToyEventStore()
    registry = RunRegistry(backend, store=store, node_id="node-1")
    async with registry.open():
        run = Run(run_id=new_run_id(), key=SessionKey("ann", new_session_id()))
        await registry.start(run, Handler(Script(say("a"), say("b"))), {"run": run, "msgs": []}, strategy="reject")
        await run.ended.wait()
        record = await backend.run_status(run.run_id)
        assert record is not None
        reader = await Viewing(registry, backend, store).attach(record)
        assert reader is not None
        numbers = []
        with reader:
            try:
                while True:
                    numbers += [event.sequence_number for event in await reader.receive()]
            except trio.EndOfChannel:
                pass
        assert numbers == list(range(len(store.events[run.run_id])))
        assert len(numbers) > 3
