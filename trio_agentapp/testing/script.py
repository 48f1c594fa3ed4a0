"""An agent that follows a list of steps and records them, for tests of the parts around an agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

if TYPE_CHECKING:
    from ..runs import Run

__all__ = ["Script", "Step", "ask_for_exit", "cleanup", "fail", "say", "swallow", "wait"]


@attrs.frozen
class say:
    """Yield an item."""

    item: object


@attrs.frozen
class wait:
    """Await `seconds`; forever by default."""

    seconds: float = float("inf")


@attrs.frozen
class fail:
    """Raise `error`."""

    error: BaseException


@attrs.frozen
class swallow:
    """Await `seconds` and continue even if cancelled. Agents must not do this."""

    seconds: float


@attrs.frozen
class cleanup:
    """Await `seconds` inside `run.cleanup()`."""

    seconds: float


@attrs.frozen
class ask_for_exit:
    """Register an exit callback that awaits `seconds`, and then raises `error` if there is one."""

    seconds: float = 0.0
    error: BaseException | None = None


Step: TypeAlias = say | wait | fail | swallow | cleanup | ask_for_exit


class Script:
    """A handler: `app.query()(Script(say("Hello"), wait(1), say("world")))`.

    Attributes:
        done: the steps that were begun, over all runs, and "unwound" when a run has unwound.
        unwound: set when the first run has unwound.
    """

    def __init__(self, *steps: Step) -> None:
        self.steps = steps
        self.done: list[Step | str] = []
        self.unwound = trio.Event()

    async def __call__(self, run: Run) -> AsyncIterator[object]:
        try:
            for step in self.steps:
                self.done.append(step)
                if isinstance(step, say):
                    yield step.item
                else:
                    await self._take(step, run)
        finally:
            self.done.append("unwound")
            self.unwound.set()

    async def _take(self, step: Step, run: Run) -> None:
        match step:
            case wait(seconds):
                await trio.sleep(seconds)
            case fail(error):
                raise error
            case swallow(seconds):
                # This swallows the cancellation, which is the fault that this step is for.
                try:
                    await trio.sleep(seconds)
                except trio.Cancelled:
                    self.done.append("swallowed")
            case cleanup(seconds):
                async with run.cleanup():
                    await trio.sleep(seconds)
            case ask_for_exit(seconds, error):

                async def leave() -> None:
                    self.done.append("exit")
                    await trio.sleep(seconds)
                    if error is not None:
                        raise error

                run.on_exit(leave)
