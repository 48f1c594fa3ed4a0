"""Records the generators and nurseries that one task of user code has opened, and closes them at its end."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator
from operator import itemgetter
from typing import Any

import attrs
import trio

from ..protocol.exception_groups import leaves
from ..protocol.text import type_name
from .failures import printable

__all__ = ["ADVICE", "LeftOpen", "Ledger", "left_open"]

MANY = 64
"""Used for three bounds.

Generators that are recorded before ended ones are removed from the record; dropped generators without a scope that
are kept until the task ends; generators that are closed before other tasks get a turn.
"""

POLL = 0.01
"""Seconds between two checks of the tasks of a nursery that was not left. Trio has no event for their end."""

ADVICE = "Use `async with contextlib.aclosing(...)` around its loop."


class LeftOpen(RuntimeError):
    """User code left a generator, nursery or cancel scope open that could not be closed after it."""


@attrs.frozen
class _Begun:
    """A generator that a task has begun."""

    place: int
    reference: weakref.ref[AsyncGenerator[Any, Any]]
    scope: object
    """The task's innermost scope before the first step of the generator."""


class Ledger:
    """The generators that one task of user code has begun, in order, and those of them that were dropped.

    Also the nurseries that it has opened and in which tasks were started.
    """

    __slots__ = ("_begun", "_count", "_kept", "_many", "_nurseries", "dropped", "fault", "outer", "task")

    def __init__(self, task: trio.lowlevel.Task, outer: Ledger | None) -> None:
        self.task = task
        self.outer = outer
        self.fault: LeftOpen | None = None
        self.dropped: tuple[str, ...] = ()
        """Names of the generators that were dropped before their end."""
        self._begun: dict[int, _Begun] = {}
        self._kept: dict[int, AsyncGenerator[Any, Any]] = {}
        self._nurseries: set[trio.Nursery] | tuple[()] = ()
        """Empty for most tasks, of which there are thousands: an empty set takes 216 bytes."""
        self._count = 0
        self._many = MANY

    def begin(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._count += 1
        self._begun[id(generator)] = _Begun(self._count, weakref.ref(generator), self.task._cancel_status)
        if len(self._begun) > self._many:
            alive = {
                key: begun
                for key, begun in self._begun.items()
                if key in self._kept or begun.reference() is not None
            }
            self._begun = alive
            self._many = max(MANY, 2 * len(alive))

    def keep(self, generator: AsyncGenerator[Any, Any]) -> bool:
        """Keep a generator that is being dropped, to close it later. Returns False if Trio should close it."""
        begun = self._begun.get(id(generator))
        # The weak references to a dropped generator are dead by now. A live one belongs to another object with the
        # same id.
        if begun is None or begun.reference() is not None:
            return False
        if len(self._kept) >= MANY and self.task._cancel_status is begun.scope:
            # It holds no scope, so Trio may close it. An endless loop must not fill the memory with what it drops.
            return False
        self._kept[id(generator)] = generator
        self.dropped = (*self.dropped, _name_of(generator))[-MANY:]
        return True

    def open(self, nursery: trio.Nursery) -> None:
        """Note a nursery in which a task was started."""
        if not isinstance(self._nurseries, set):
            self._nurseries = set()
        self._nurseries.add(nursery)
        if len(self._nurseries) > MANY:
            self._nurseries = {each for each in self._nurseries if each.child_tasks}

    async def close(self, *, everything: bool) -> list[LeftOpen]:
        """Close dropped generators; with `everything`, also those still referred to. The last begun is first."""
        faults: list[LeftOpen] = []
        closed = 0
        # Closing a generator may begin others.
        while left := self._left(everything):
            for generator in left:
                del self._begun[id(generator)]
                self._kept.pop(id(generator), None)
                try:
                    await generator.aclose()
                except BaseException as exc:
                    rest = [leaf for leaf in leaves(exc) if not isinstance(leaf, GeneratorExit | trio.Cancelled)]
                    if rest:
                        name = _name_of(generator)
                        message = f"Async generator {name} was left before its end, and cannot be closed. {ADVICE}"
                        faults.append(left_open(message, printable(exc)))
                closed += 1
                if closed % MANY == 0:
                    await trio.lowlevel.cancel_shielded_checkpoint()
        return faults

    def _left(self, everything: bool) -> list[AsyncGenerator[Any, Any]]:
        found = []
        for key, begun in self._begun.items():
            generator = self._kept.get(key) or (begun.reference() if everything else None)
            if generator is not None and not getattr(generator, "ag_running", False):
                found.append((begun.place, generator))
        return [generator for _, generator in sorted(found, key=itemgetter(0), reverse=True)]

    async def close_nurseries(self, before: int) -> list[LeftOpen]:
        """Cancel the tasks in nurseries that were entered and not left, and remove these nurseries from the task.

        If another task has left a nursery, as with a generator that was passed on, it does not belong to the task
        any more, but may still have tasks.
        """
        mine = self.task.child_nurseries[before:]
        strays = [each for each in self._nurseries if each.child_tasks and each not in self.task.child_nurseries]
        faults = []
        for nursery in (*strays, *reversed(mine)):
            nursery.cancel_scope.cancel(reason="the code that opened this nursery has ended without leaving it")
            with trio.CancelScope(shield=True):
                while nursery.child_tasks:  # noqa: ASYNC110  another's nursery sets no event
                    await trio.sleep(POLL)
            if nursery in mine:
                # Trio would otherwise end the task with its own error, which does not say what to do.
                self.task._child_nurseries.remove(nursery)
            faults.append(left_open("A nursery was not left by the task that entered it; use `async with`."))
        return faults


def left_open(message: str, cause: BaseException | None = None) -> LeftOpen:
    fault = LeftOpen(message)
    fault.__cause__ = cause
    return fault


def _name_of(generator: Any) -> str:
    code = getattr(generator, "ag_code", None)
    place = "" if code is None else f" ({code.co_filename}:{code.co_firstlineno})"
    return f"{getattr(generator, '__qualname__', type_name(generator))}{place}"
