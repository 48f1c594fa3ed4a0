"""An interrupt backend that misbehaves on demand: slow, failing, or losing answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, TypeVar, cast

import trio

from ..abc import (
    BaseInterruptBackend,
    Claim,
    IdempotencyKeys,
    InputAnswer,
    Lease,
    Renewal,
    RunInbox,
    RunListing,
    RunWakeups,
    Signal,
    StopAnswer,
)
from ..errors import BackendUnavailable
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Ending, RunRecord, SessionStatus

__all__ = ["Operation", "UnrulyBackend"]

T = TypeVar("T")

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


class UnrulyBackend(BaseInterruptBackend, RunListing, RunInbox, IdempotencyKeys, RunWakeups):
    """Another backend behind a bad network. It offers what that one offers, and counts `calls`.

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

    def offers(self, capability: type[object]) -> bool:
        return self.inner.offers(capability)

    def fail(self, operation: Operation, error: BaseException | None = None, *, times: int = 1) -> None:
        """Let the next `times` calls raise `error` (BackendUnavailable), without any effect."""
        self._before[operation] += [error or BackendUnavailable("told to fail")] * times

    def lose(self, operation: Operation, error: BaseException | None = None, *, times: int = 1) -> None:
        """Let the next `times` calls raise `error` (BackendUnavailable) after they took effect."""
        self._after[operation] += [error or BackendUnavailable("told to lose the answer")] * times

    def hold(self, operation: Operation, *, after: bool = False) -> trio.Event:
        """Let the next call wait for the event that is returned: before it takes effect, or after."""
        gate = trio.Event()
        (self._after if after else self._before)[operation].append(gate)
        return gate

    async def _pass_on(self, operation: Operation, method: Callable[..., Awaitable[T]], *args: object) -> T:
        self.calls[operation] += 1
        await _follow(self._before[operation])
        answer = await method(*args)
        await _follow(self._after[operation])
        return answer

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.inner.serve(task_status=task_status)

    @property
    def trouble(self) -> str | None:
        return self.inner.trouble

    async def claim(self, lease: Lease) -> Claim:
        return await self._pass_on("claim", self.inner.claim, lease)

    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        return await self._pass_on("heartbeat", self.inner.heartbeat, leases)

    async def request_stop(
        self, key: SessionKey | None, run_id: str | None = None, *, user_id: str | None = None
    ) -> StopAnswer:
        async def stop() -> StopAnswer:
            return await self.inner.request_stop(key, run_id, user_id=user_id)

        return await self._pass_on("request_stop", stop)

    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        return await self._pass_on("finish", self.inner.finish, lease, ending)

    async def run_status(self, run_id: str) -> RunRecord | None:
        return await self._pass_on("run_status", self.inner.run_status, run_id)

    async def status(self, key: SessionKey) -> SessionStatus:
        return await self._pass_on("status", self.inner.status, key)

    async def listen(
        self,
        node_id: str,
        deliver: Callable[[Signal], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        await self.inner.listen(node_id, deliver, task_status=task_status)

    def watching(self, key: SessionKey, wake: Callable[[str], object]) -> AbstractAsyncContextManager[None]:
        return cast(RunWakeups, self.inner).watching(key, wake)

    async def list_runs(
        self, user_id: str, *, before: str | None = None, limit: int = 100
    ) -> tuple[Sequence[RunRecord], str | None]:
        async def list_them() -> tuple[Sequence[RunRecord], str | None]:
            return await cast(RunListing, self.inner).list_runs(user_id, before=before, limit=limit)

        return await self._pass_on("list_runs", list_them)

    async def send_input(self, key: SessionKey, run_id: str, message: bytes) -> InputAnswer:
        return await self._pass_on("send_input", cast(RunInbox, self.inner).send_input, key, run_id, message)

    async def take_input(self, lease: Lease, received: int) -> Sequence[bytes]:
        return await self._pass_on("take_input", cast(RunInbox, self.inner).take_input, lease, received)

    async def pin(self, name: str, value: str) -> str:
        return await self._pass_on("pin", cast(IdempotencyKeys, self.inner).pin, name, value)

    async def unpin(self, name: str, value: str) -> None:
        await self._pass_on("unpin", cast(IdempotencyKeys, self.inner).unpin, name, value)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def _follow(plans: list[BaseException | trio.Event]) -> None:
    if not plans:
        return
    plan = plans.pop(0)
    if isinstance(plan, trio.Event):
        await plan.wait()
    else:
        await trio.lowlevel.checkpoint()
        raise plan
