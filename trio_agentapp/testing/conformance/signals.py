"""Questions about signals. They may be lost, so a Resync is accepted as well if the renewal reports the stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ...abc import BaseInterruptBackend, Lease, Renewal, Resync, Signal, StopSignal
from ...protocol.ids import new_run_id
from ...protocol.lifecycle import RunState
from .asking import expect, questions_in
from .parties import STOPPED, fresh_lease, own

__all__ = ["QUESTIONS"]


class _Inbox:
    """The signals that one node got."""

    def __init__(self) -> None:
        self.signals: list[Signal] = []
        self._changed = trio.Event()

    def deliver(self, signal: Signal) -> None:
        self.signals.append(signal)
        self._changed.set()
        self._changed = trio.Event()

    @property
    def stops(self) -> list[StopSignal]:
        return [signal for signal in self.signals if isinstance(signal, StopSignal)]

    async def wait_stopped(self, backend: BaseInterruptBackend, owner: Lease) -> None:
        """Wait for the stop signal of `owner`, or for a Resync after which a renewal reports the stop."""
        read = 0
        while True:
            while read < len(self.signals):
                signal = self.signals[read]
                read += 1
                if signal == StopSignal(owner.run_id, owner.token):
                    return
                if isinstance(signal, Resync) and await backend.heartbeat([owner]) == [Renewal.STOP]:
                    return
            await self._changed.wait()


@asynccontextmanager
async def _listening(backend: BaseInterruptBackend, node_id: str, inbox: _Inbox) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(backend.listen, node_id, inbox.deliver)
        yield
        nursery.cancel_scope.cancel(reason="the question was answered")


async def a_stop_without_a_listener_is_kept(backend: BaseInterruptBackend) -> None:
    owner = await own(backend)
    await backend.request_stop(owner.key)
    expect(await backend.heartbeat([owner]) == [Renewal.STOP], "a stop was lost since its node did not listen")


async def a_stop_is_signalled_to_the_owner_only(backend: BaseInterruptBackend) -> None:
    here, there = _Inbox(), _Inbox()
    ours, theirs = await own(backend), await own(backend)
    async with _listening(backend, ours.node_id, here), _listening(backend, theirs.node_id, there):
        await backend.request_stop(ours.key)
        await here.wait_stopped(backend, ours)
        # What was sent to the wrong node by the first stop would be there before the second one's signal.
        await backend.request_stop(None, theirs.run_id)
        await there.wait_stopped(backend, theirs)
        await backend.request_stop(ours.key)
        await backend.request_stop(theirs.key)
    for inbox, lease in ((here, ours), (there, theirs)):
        wrong = [signal for signal in inbox.stops if signal != StopSignal(lease.run_id, lease.token)]
        expect(not wrong, f"a node whose only run is {lease.run_id} (token {lease.token}) got {wrong!r}")


async def a_signal_names_the_run_that_runs(backend: BaseInterruptBackend) -> None:
    inbox, node_id = _Inbox(), new_run_id()
    async with _listening(backend, node_id, inbox):
        first = await own(backend, fresh_lease(node_id=node_id))
        await backend.request_stop(first.key)
        await inbox.wait_stopped(backend, first)
        await backend.finish(first, STOPPED)
        second = await own(backend, fresh_lease(first.key, node_id=node_id))
        await backend.request_stop(first.key, first.run_id)
        third = await own(backend, fresh_lease(node_id=node_id))
        await backend.request_stop(third.key)
        await inbox.wait_stopped(backend, third)
    about_second = [signal for signal in inbox.stops if signal.run_id == second.run_id]
    expect(not about_second, "a late stop of an ended run was signalled to the run after it")


async def a_cancelled_listener_gets_nothing(backend: BaseInterruptBackend) -> None:
    before, after, node_id = _Inbox(), _Inbox(), new_run_id()
    async with _listening(backend, node_id, before):
        pass
    heard = len(before.signals)
    owner = await own(backend, fresh_lease(node_id=node_id))
    async with _listening(backend, node_id, after):
        await backend.request_stop(owner.key)
        await after.wait_stopped(backend, owner)
    expect(len(before.signals) == heard, "a listener got a stop after it had been cancelled")
    record = await backend.finish(owner, STOPPED)
    expect(record.state is RunState.STOPPED, f"its run ended as {record.state.value}")


QUESTIONS = questions_in(globals())
