"""Contains user code: its faults end its own run, request or task, and nothing else.

Three faults of user code would otherwise damage other work:

- A generator is left early (`break` out of `async for`) while it holds a nursery or a cancel scope. Python hands it
  to Trio, which closes it in another task. But only the task that opened a nursery can leave it. Trio then reports
  "Nursery stack corrupted" to the parent of that task.
- A cancel scope or nursery is entered and never left. The effect is the same.
- The `__repr__` or `__str__` of an exception raises. Trio puts the `repr` of every exception that ends a task into
  the reason of a cancellation. It does so in its own loop, where an exception ends the process.

So user code is executed in a task of its own: `contain` makes one, `orderly` uses the current one. At the end of
that task, the generators that it has begun and left are closed by that same task, the last one first, and the
exception that it raises is made printable. The same is done for every task that it starts, in any nursery.

How generators are found: Python calls a hook when an async generator is first iterated, and another one when it is
dropped before its end (PEP 525). The hooks here note the task that began it, and keep dropped ones; all others are
passed on to Trio's own hooks. How tasks are found: Trio's Instrument API reports each task before its first step.
Both are installed by the first `orderly` of a Trio run, and removed with it.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, TypeVar, TypeVarTuple, cast

import attrs
import outcome
import trio

from ..protocol.exception_groups import leaves
from ..protocol.text import describe_exception, safe_text, type_name
from .failures import is_cancelled, printable

__all__ = [
    "Escaped",
    "LeftOpen",
    "apart",
    "close_dropped",
    "closing_dropped",
    "contain",
    "noted",
    "orderly",
    "unwrap",
]

logger = logging.getLogger("trio_agentapp.runs")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MANY = 64
"""Begun generators that are remembered before ended ones are searched for and forgotten; dropped ones without a
scope that are kept until the task ends; and generators closed before other tasks get a turn."""

POLL = 0.01
"""Seconds between two checks of the tasks of a nursery that was not left. Trio has no event for their end."""

_installed: trio.lowlevel.RunVar[bool] = trio.lowlevel.RunVar("trio_agentapp_containment")

_ledgers: dict[trio.lowlevel.Task, _Ledger] = {}
"""The generators that each task of user code has begun. Tasks that user code starts are user code, too."""


class LeftOpen(RuntimeError):
    """User code left a generator, nursery or cancel scope open that could not be closed after it."""


class Escaped(RuntimeError):
    """User code raised an exception that is meant for a process, such as SystemExit. That is its cause."""


async def contain(fn: Callable[[*Ts], Awaitable[T]], *args: *Ts, name: object = None) -> outcome.Outcome[T]:
    """Await `fn(*args)` in a task of its own, to its end. Returns its outcome, a value or an exception.

    Cancellation works as always, and is in the outcome as `trio.Cancelled`: call `unwrap` in the end.
    """
    ended: list[outcome.Outcome[T]] = []

    async def call() -> None:
        ended.append(await outcome.acapture(lambda: orderly(fn, *args)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, name=name or fn)
    return ended[0]


async def orderly(fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Await `fn(*args)` in the current task, then close the generators and nurseries that it has left open.

    Call it only in a task that executes nothing else, so that a fault harms nothing else.

    Raises what the function raises, made printable.

    Raises:
        LeftOpen: the function returned, and something that it left open could not be closed.
    """
    if not _installed.get(False):
        _install()
    task = trio.lowlevel.current_task()
    ledger = _ledgers[task] = _Ledger(task, _ledgers.get(task))
    parent, scope, nurseries = task.parent_nursery, task._cancel_status, len(task.child_nurseries)
    faults: list[LeftOpen] = []
    error: BaseException | None = None
    try:
        try:
            value = await fn(*args)
        except BaseException as exc:
            error = exc
        # If no scope was left open, generators that are still referred to, such as those of a client, stay open.
        unclean = len(task.child_nurseries) > nurseries or _is_inside(task, parent, scope)
        faults += await ledger.close(everything=unclean)
        faults += await ledger.close_nurseries(nurseries)
        if not faults and _is_inside(task, parent, scope):
            faults.append(LeftOpen("A cancel scope was entered and not left; use `with`."))
    finally:
        _put_back(task, ledger)
    if error is not None:
        for fault in faults:
            logger.warning("%s", fault, exc_info=fault.__cause__)
        error = printable(error)
        if ledger.dropped and _is_misnesting(error):
            error = _left_open(_advice(ledger.dropped), error)
        try:
            raise error
        finally:
            # Its traceback refers to this frame. The cycle would keep everything that the function held.
            del error
    if faults:
        raise faults[0]
    return value


@contextmanager
def apart() -> Iterator[None]:
    """Tasks started inside this block are not user code, even if the current task is. The block must not await."""
    _Spawning.apart = True
    try:
        yield
    finally:
        _Spawning.apart = False


@contextmanager
def noted() -> Iterator[None]:
    """Note the generators that the current task begins inside this block, for `close_dropped`.

    For code that has to stay in a shared task and may leave scopes open, such as the first half of a lifespan. The
    tasks that it starts are treated as by `orderly`.
    """
    if not _installed.get(False):
        _install()
    task = trio.lowlevel.current_task()
    ledger = _ledgers[task] = _Ledger(task, _ledgers.get(task))
    try:
        yield
    except BaseException as exc:
        if ledger.fault is not None and _is_misnesting(exc):
            # It says more than the error that Trio made of it.
            raise ledger.fault from exc
        raise
    finally:
        _put_back(task, ledger)


async def close_dropped() -> None:
    """Close the generators that the current task has begun inside `noted` and dropped.

    Raises:
        LeftOpen: one of them could not be closed.
    """
    ledger: _Ledger | None = _ledgers[trio.lowlevel.current_task()]
    assert ledger is not None  # noqa: S101  it is called inside `noted`
    for fault in await ledger.close(everything=False):
        while ledger is not None:
            ledger.fault = ledger.fault or fault
            ledger = ledger.outer
        raise fault


async def closing_dropped(fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Await `fn(*args)`, user code that is no task of its own, then close the generators that it has dropped.

    Raises what the function raises.

    Raises:
        LeftOpen: one of the generators that it has begun and dropped could not be closed.
    """
    with noted():
        try:
            return await fn(*args)
        finally:
            await close_dropped()


def unwrap(ended: outcome.Outcome[T]) -> T:
    """Return the value, or raise the error; as `Escaped` if it is not an Exception, such as SystemExit.

    A cancellation is raised as it is.
    """
    if (
        isinstance(ended, outcome.Error)
        and not isinstance(ended.error, Exception)
        and not is_cancelled(ended.error)
    ):
        raise Escaped(f"{describe_exception(ended.error)} was raised") from ended.error
    return ended.unwrap()


def _put_back(task: trio.lowlevel.Task, ledger: _Ledger) -> None:
    if ledger.outer is None:
        del _ledgers[task]
    else:
        _ledgers[task] = ledger.outer


@attrs.frozen
class _Begun:
    """A generator that a task has begun."""

    place: int
    reference: weakref.ref[AsyncGenerator[Any, Any]]
    scope: object
    """The task's innermost scope before the first step of the generator."""


class _Ledger:
    """The generators that one task of user code has begun, in order, and those of them that were dropped.

    Also the nurseries that it has opened and in which tasks were started.
    """

    __slots__ = ("_begun", "_count", "_kept", "_many", "_nurseries", "dropped", "fault", "outer", "task")

    def __init__(self, task: trio.lowlevel.Task, outer: _Ledger | None) -> None:
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
        """Keep a generator that is being dropped. Returns False if it was not begun here, or Trio may close it."""
        begun = self._begun.get(id(generator))
        # Its weak references are dead by now. A live one belongs to another object, which got the same id.
        if begun is None or begun.reference() is not None:
            return False
        if len(self._kept) >= MANY and self.task._cancel_status is begun.scope:
            # It holds no scope, and there are many. An endless loop must not collect what it drops.
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
        # Closing one may begin others.
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
                        faults.append(_left_open(message, printable(exc)))
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
                # Otherwise Trio would end the task with an error of its own in place of this one.
                self.task._child_nurseries.remove(nursery)
            faults.append(_left_open("A nursery was not left by the task that entered it; use `async with`."))
        return faults


def _is_inside(task: trio.lowlevel.Task, parent: trio.Nursery | None, scope: object) -> bool:
    """Whether the task has entered a scope since `scope` was its innermost one, and not left it."""
    # A task begun by `nursery.start` has moved to another nursery by then, and into the scopes of that.
    return task.parent_nursery is parent and task._cancel_status is not scope


ADVICE = "Use `async with contextlib.aclosing(...)` around its loop."


def _advice(names: Iterable[str]) -> str:
    return (
        f"Async generator {', '.join(dict.fromkeys(names))} was left before its end while it held a nursery or "
        f"cancel scope, and then a scope around it was left. {ADVICE}"
    )


def _is_misnesting(error: BaseException) -> bool:
    """Whether Trio reports that scopes were not left in the reverse order of entering them."""
    return any(
        isinstance(leaf, RuntimeError | AssertionError)
        and any(words in str(leaf) for words in ("stack corrupted", "misnesting"))
        for leaf in leaves(error)
    )


def _left_open(message: str, cause: BaseException | None = None) -> LeftOpen:
    fault = LeftOpen(message)
    fault.__cause__ = cause
    return fault


def _name_of(generator: Any) -> str:
    code = getattr(generator, "ag_code", None)
    place = "" if code is None else f" ({code.co_filename}:{code.co_firstlineno})"
    return f"{getattr(generator, '__qualname__', type_name(generator))}{place}"


# Hooks and instrument for Trio.


class _Spawning(trio.abc.Instrument):
    """Treats the tasks that user code starts as `orderly` treats the task that started them."""

    apart = False

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        if self.apart:
            return
        nursery = task.parent_nursery
        owner = None if nursery is None else _ledgers.get(nursery.parent_task)
        if owner is not None and nursery is not None:
            owner.open(nursery)
        # A call of Trio from a thread is a system task, started by a system task.
        by_thread = nursery is not None and nursery.parent_task is trio.lowlevel.current_root_task()
        if by_thread or owner is not None or _ledger_here() is not None:
            if type(task.name) is not str:
                # Trio puts the name into the reason of each cancellation that an error of the task causes.
                task.name = safe_text(task.name)
            body: Any = task.coro
            task.coro = cast(Any, _carry_on(body))


async def _carry_on(body: Coroutine[Any, outcome.Outcome[object], Any]) -> Any:
    return await orderly(lambda: body)


def _install() -> None:
    """Install the hooks for the current Trio run. At its end, Trio restores the previous ones."""
    _installed.set(True)
    trio.lowlevel.add_instrument(_Spawning())
    begin, drop = sys.get_asyncgen_hooks()

    def first_iterated(generator: AsyncGenerator[Any, Any]) -> None:
        if begin is not None:
            begin(generator)
        if (ledger := _ledger_here()) is not None:
            ledger.begin(generator)

    def dropped(generator: AsyncGenerator[Any, Any]) -> None:
        if not _keep(generator) and drop is not None:
            drop(generator)

    sys.set_asyncgen_hooks(firstiter=first_iterated, finalizer=dropped)


def _ledger_here() -> _Ledger | None:
    try:
        return _ledgers.get(trio.lowlevel.current_task())
    except RuntimeError:
        # Not in a task: the garbage collector may call from anywhere.
        return None


def _keep(generator: AsyncGenerator[Any, Any]) -> bool:
    here = _ledger_here()
    for first in (here, *_ledgers.values()):
        ledger = first
        while ledger is not None:
            if ledger.keep(generator):
                return True
            ledger = ledger.outer
    return False
