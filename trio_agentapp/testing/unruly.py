"""A backend that misbehaves on demand: slow, failing, or with answers that are lost on their way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import trio

from ..abc import BaseInterruptBackend, Claim, InputAnswer, Lease, Renewal, Signal, StopAnswer
from ..errors import BackendUnavailable
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Ending, RunRecord, SessionStatus

__all__ = ["Operation", "UnrulyBackend"]

Operation = Literal[
    "claim",
    "heartbeat",
    "request_stop",
    "finish",
    "run_status",
    "status",
    "list_runs",
    "send_input",
    "take_input",
    "pin",
    "unpin",
]


class UnrulyBackend(BaseInterruptBackend):
    """Another backend behind a bad network. Without instructions it only counts `calls`.

    backend = UnrulyBackend(LocalInterruptBackend())
    backend.fail("finish", times=2)             # the operation does not happen
    backend.lose("claim")                       # it happens, and its answer is lost
    gate = backend.hold("claim")                # it waits until `gate.set()`, before it happens
    gate = backend.hold("claim", after=True)    # it happens, and its answer waits
    """

    def __init__(self, inner: BaseInterruptBackend) -> None:
        self.inner = inner
        self.timings = inner.timings
        self.calls: defaultdict[Operation, int] = defaultdict(int)
        self._before: dict[Operation, list[BaseException | trio.Event]] = defaultdict(list)
        self._after: dict[Operation, list[BaseException | trio.Event]] = defaultdict(list)

    def fail(self, operation: Operation, error: BaseException | None = None, *, times: int = 1) -> None:
        """The next `times` calls raise `error` (BackendUnavailable), and nothing happens."""
        self._before[operation] += [error or BackendUnavailable("told to fail")] * times

    def lose(self, operation: Operation, error: BaseException | None = None, *, times: int = 1) -> None:
        """The next `times` calls take effect, and raise `error` (BackendUnavailable) all the same."""
        self._after[operation] += [error or BackendUnavailable("told to lose the answer")] * times

    def hold(self, operation: Operation, *, after: bool = False) -> trio.Event:
        """The next call waits for the event that this gives: before it takes effect, or after."""
        gate = trio.Event()
        (self._after if after else self._before)[operation].append(gate)
        return gate

    async def _meet(self, plans: dict[Operation, list[BaseException | trio.Event]], operation: Operation) -> None:
        if not plans[operation]:
            return
        plan = plans[operation].pop(0)
        if isinstance(plan, trio.Event):
            await plan.wait()
        else:
            await trio.lowlevel.checkpoint()
            raise plan

    async def _begin(self, operation: Operation) -> None:
        self.calls[operation] += 1
        await self._meet(self._before, operation)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.inner.serve(task_status=task_status)

    @property
    def trouble(self) -> str | None:
        return self.inner.trouble

    async def claim(self, lease: Lease) -> Claim:
        await self._begin("claim")
        answer = await self.inner.claim(lease)
        await self._meet(self._after, "claim")
        return answer

    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        await self._begin("heartbeat")
        answer = await self.inner.heartbeat(leases)
        await self._meet(self._after, "heartbeat")
        return answer

    async def request_stop(
        self, key: SessionKey | None, run_id: str | None = None, *, user_id: str | None = None
    ) -> StopAnswer:
        await self._begin("request_stop")
        answer = await self.inner.request_stop(key, run_id, user_id=user_id)
        await self._meet(self._after, "request_stop")
        return answer

    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        await self._begin("finish")
        answer = await self.inner.finish(lease, ending)
        await self._meet(self._after, "finish")
        return answer

    async def run_status(self, run_id: str) -> RunRecord | None:
        await self._begin("run_status")
        answer = await self.inner.run_status(run_id)
        await self._meet(self._after, "run_status")
        return answer

    async def status(self, key: SessionKey) -> SessionStatus:
        await self._begin("status")
        answer = await self.inner.status(key)
        await self._meet(self._after, "status")
        return answer

    async def listen(
        self,
        node_id: str,
        deliver: Callable[[Signal], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        await self.inner.listen(node_id, deliver, task_status=task_status)

    @asynccontextmanager
    async def watching(self, key: SessionKey, wake: Callable[[str], object]) -> AsyncIterator[None]:
        async with self.inner.watching(key, wake):
            yield

    async def list_runs(
        self, user_id: str, *, before: str | None = None, limit: int = 100
    ) -> tuple[Sequence[RunRecord], str | None]:
        await self._begin("list_runs")
        answer = await self.inner.list_runs(user_id, before=before, limit=limit)
        await self._meet(self._after, "list_runs")
        return answer

    async def send_input(self, key: SessionKey, run_id: str, message: bytes) -> InputAnswer:
        await self._begin("send_input")
        answer = await self.inner.send_input(key, run_id, message)
        await self._meet(self._after, "send_input")
        return answer

    async def take_input(self, lease: Lease, received: int) -> Sequence[bytes]:
        await self._begin("take_input")
        answer = await self.inner.take_input(lease, received)
        await self._meet(self._after, "take_input")
        return answer

    async def pin(self, name: str, value: str) -> str:
        await self._begin("pin")
        answer = await self.inner.pin(name, value)
        await self._meet(self._after, "pin")
        return answer

    async def unpin(self, name: str, value: str) -> None:
        await self._begin("unpin")
        await self.inner.unpin(name, value)
        await self._meet(self._after, "unpin")

    async def aclose(self) -> None:
        await self.inner.aclose()
