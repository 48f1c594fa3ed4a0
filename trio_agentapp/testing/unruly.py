"""An interrupt backend that misbehaves on demand: slow, failing, or losing answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import trio

from ..abc import (
    BaseInterruptBackend,
    IdempotencyKeys,
    QuestionBoard,
    RunInbox,
    RunListing,
    RunWakeups,
    Signal,
    watching,
)
from ..errors import BackendUnavailable
from ..protocol.ids import SessionKey

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
    "post_questions",
    "pin",
    "unpin",
]


def _operation(name: Operation) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def operation(self: UnrulyBackend, *args: Any, **options: Any) -> Any:
        return await self._call(name, *args, **options)

    return operation


class UnrulyBackend(BaseInterruptBackend, RunListing, RunInbox, QuestionBoard, IdempotencyKeys, RunWakeups):
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
        self._before[operation] += [error or BackendUnavailable("fails on demand")] * times

    def lose(self, operation: Operation, error: BaseException | None = None, *, times: int = 1) -> None:
        """Let the next `times` calls raise `error` (BackendUnavailable) after they took effect."""
        self._after[operation] += [error or BackendUnavailable("loses the answer on demand")] * times

    def hold(self, operation: Operation, *, after: bool = False) -> trio.Event:
        """Let the next call wait for the event that is returned: before it takes effect, or after."""
        gate = trio.Event()
        (self._after if after else self._before)[operation].append(gate)
        return gate

    async def _call(self, operation: Operation, *args: Any, **options: Any) -> Any:
        self.calls[operation] += 1
        await _follow(self._before[operation])
        answer = await getattr(self.inner, operation)(*args, **options)
        await _follow(self._after[operation])
        return answer

    claim = _operation("claim")
    heartbeat = _operation("heartbeat")
    request_stop = _operation("request_stop")
    finish = _operation("finish")
    run_status = _operation("run_status")
    status = _operation("status")
    list_runs = _operation("list_runs")
    send_input = _operation("send_input")
    take_input = _operation("take_input")
    post_questions = _operation("post_questions")
    pin = _operation("pin")
    unpin = _operation("unpin")

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.inner.serve(task_status=task_status)

    @property
    def trouble(self) -> str | None:
        return self.inner.trouble

    async def listen(
        self,
        node_id: str,
        deliver: Callable[[Signal], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        await self.inner.listen(node_id, deliver, task_status=task_status)

    def watching(self, key: SessionKey, wake: Callable[[str], object]) -> AbstractAsyncContextManager[None]:
        return watching(self.inner, key, wake)

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
