"""What an asyncio handler gets as `run`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from ..protocol.message import Message
from ..protocol.shared_state import SharedState
from ..runs import Run, StopFlag
from ..runs.questions import Answer, Question
from .bridge import Bridge
from .call import wait_saved
from .items import current_items

__all__ = ["AsyncioRun"]


INSTEAD = {
    "open_process": "a process of asyncio.create_subprocess_exec ends with the run, and so do its descendants",
}


class AsyncioRun:
    """A `Run`, usable from the asyncio loop: the same attributes, and methods that await there.

    A stop cancels an asyncio handler once, so its `except` and `finally` may await without a shield. `cleanup()`
    only waits until the framework has saved the stopped run. Handlers of AutoGen also have `cancellation_token`,
    which a stop cancels.
    """

    def __init__(self, run: Run, bridge: Bridge) -> None:
        self._run = run
        self._bridge = bridge
        self.run_id = run.run_id
        self.user_id = run.user_id
        self.session_id = run.session_id
        self.token = run.token
        self.deadline = run.deadline

    def __getattr__(self, name: str) -> NoReturn:
        hint = f"; {INSTEAD[name]}" if name in INSTEAD else ""
        raise AttributeError(f"run.{name} does not exist in asyncio handlers{hint}")

    @property
    def stopping(self) -> StopFlag:
        return self._run.stopping

    @property
    def usage(self) -> Mapping[str, Any] | None:
        return self._run.usage

    @usage.setter
    def usage(self, usage: Mapping[str, Any] | None) -> None:
        self._bridge.call_trio(setattr, self._run, "usage", usage)

    @property
    def state(self) -> SharedState:
        """The JSON object that front ends show; see `Run.state`. It may be used from any thread."""
        return self._run.state

    @state.setter
    def state(self, value: Mapping[str, Any]) -> None:
        self._run.state = value

    async def emit(self, item: object) -> None:
        """Send an item, as a `yield` does. The order of `yield` and `emit` is kept."""
        await current_items.get().send(item)

    async def receive(self) -> Message:
        """Wait for the next message that a client sends to this run, and return it."""
        return await self._bridge.await_trio(self._run.receive)

    async def ask(
        self, question: str | Message, *, schema: Any = None, timeout: float | None = None, auth: bool = False
    ) -> Answer:
        """Ask the client a question and wait for the answer; see `Run.ask`.

        Raises:
            TimeoutError: there was no answer within `timeout` seconds.
        """

        async def opened() -> Question:
            return self._run.input.open_question(question, schema=schema, timeout=timeout, auth=auth)

        asked = await self._bridge.await_trio(opened)
        # Sent through the queue of items, so that it comes after the items that were yielded before.
        await current_items.get().send(asked.message())
        answer = await self._bridge.await_trio(self._run.input.wait_answered, asked, timeout, self._run.emit)
        if answer is None:
            raise TimeoutError
        return answer

    def on_exit(self, fn: Callable[[], Awaitable[object] | object]) -> None:
        """Call `fn` on the loop when the handler has ended; a coroutine function is awaited."""

        async def call() -> None:
            result = fn()
            if isinstance(result, Awaitable):
                await result

        self._bridge.call_trio(self._run.on_exit, lambda: self._bridge.run(call))

    def on_stop(self, fn: Callable[[], object]) -> None:
        """Call `fn` on the loop as soon as the run is stopped, before the handler gets its CancelledError."""
        current_items.get().call.on_stop(fn)

    def start_soon(self, fn: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> asyncio.Task[Any]:
        """Start an asyncio task that ends with the run."""
        return asyncio.get_running_loop().create_task(fn(*args))

    @asynccontextmanager
    async def cleanup(self) -> AsyncIterator[None]:
        await wait_saved()
        yield
