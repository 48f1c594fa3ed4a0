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

import inspect
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple, cast

import outcome
import trio

from ..protocol.exception_groups import leaves
from ..protocol.text import describe_exception, safe_text
from .failures import is_cancelled, printable
from .ledger import ADVICE, Ledger, LeftOpen, left_open

__all__ = [
    "Escaped",
    "LeftOpen",
    "apart",
    "called",
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

_installed: trio.lowlevel.RunVar[bool] = trio.lowlevel.RunVar("trio_agentapp_containment")

_ledgers: dict[trio.lowlevel.Task, Ledger] = {}
"""For each task of user code, the generators and nurseries that it has opened.

Tasks that user code starts count as user code.
"""


class Escaped(RuntimeError):
    """User code raised an exception that would end the process, such as SystemExit. It is the `__cause__`."""


async def contain(fn: Callable[[*Ts], Awaitable[T]], *args: *Ts, name: object = None) -> outcome.Outcome[T]:
    """Await `fn(*args)` in a new task until that task has ended.

    Returns an `outcome.Outcome`: the value or the exception. If the caller is cancelled, the outcome holds
    `trio.Cancelled`, so pass it to `unwrap`, which raises it.
    """
    ended: list[outcome.Outcome[T]] = []

    async def call() -> None:
        ended.append(await outcome.acapture(lambda: orderly(fn, *args)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, name=name or fn)
    return ended[0]


async def orderly(fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Await `fn(*args)` in the current task, then close the generators and nurseries that it has left open.

    Call it only in a task that executes nothing else: a scope that cannot be closed breaks the rest of its task.
    Raises what the function raises, made printable (see `failures.printable`).

    Raises:
        LeftOpen: the function returned, and something that it left open could not be closed.
    """
    if not _installed.get(False):
        _install()
    task = trio.lowlevel.current_task()
    ledger = _ledgers[task] = Ledger(task, _ledgers.get(task))
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
            error = left_open(_advice(ledger.dropped), error)
        try:
            raise error
        finally:
            # The traceback of the exception refers to this frame. That cycle would keep alive all that the function
            # held.
            del error
    if faults:
        raise faults[0]
    return value


async def called(fn: Callable[..., object], *args: object) -> None:
    """Call a function, and await its result if that is awaitable."""
    result = fn(*args)
    if inspect.isawaitable(result):
        await result


class apart:
    """Tasks started inside this block are not user code, even if the current task is. The block must not await."""

    def __enter__(self) -> None:
        _Spawning.apart = True

    def __exit__(self, *exc_info: object) -> None:
        _Spawning.apart = False


@contextmanager
def noted() -> Iterator[None]:
    """Record the generators that the current task begins inside this block, so that `close_dropped` can close them.

    For code that has to stay in a shared task and may leave scopes open, such as the first half of a lifespan. The
    tasks that it starts are treated as by `orderly`.
    """
    if not _installed.get(False):
        _install()
    task = trio.lowlevel.current_task()
    ledger = _ledgers[task] = Ledger(task, _ledgers.get(task))
    try:
        yield
    except BaseException as exc:
        if ledger.fault is not None and _is_misnesting(exc):
            # It names the generator that was left open, and Trio's error does not.
            raise ledger.fault from exc
        raise
    finally:
        _put_back(task, ledger)


async def close_dropped() -> None:
    """Close the generators that the current task has begun inside `noted` and dropped.

    Raises:
        LeftOpen: one of them could not be closed.
    """
    ledger: Ledger | None = _ledgers[trio.lowlevel.current_task()]
    assert ledger is not None  # noqa: S101  it is called inside `noted`
    for fault in await ledger.close(everything=False):
        while ledger is not None:
            ledger.fault = ledger.fault or fault
            ledger = ledger.outer
        raise fault


async def closing_dropped(fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Await `fn(*args)` in the current task, then close the generators that it has dropped.

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
    """Return the value, or raise the error.

    An error that is not an `Exception`, such as SystemExit, is raised as `Escaped`.

    A cancellation is raised as it is.
    """
    if (
        isinstance(ended, outcome.Error)
        and not isinstance(ended.error, Exception)
        and not is_cancelled(ended.error)
    ):
        raise Escaped(f"{describe_exception(ended.error)} was raised") from ended.error
    return ended.unwrap()


def _put_back(task: trio.lowlevel.Task, ledger: Ledger) -> None:
    if ledger.outer is None:
        del _ledgers[task]
    else:
        _ledgers[task] = ledger.outer


def _is_inside(task: trio.lowlevel.Task, parent: trio.Nursery | None, scope: object) -> bool:
    """Return whether the task is still in a scope that it has entered since `scope` was its innermost one."""
    # A task started by `nursery.start` moves to another nursery, and so to other scopes, when it has started.
    return task.parent_nursery is parent and task._cancel_status is not scope


def _advice(names: Iterable[str]) -> str:
    return (
        f"Async generator {', '.join(dict.fromkeys(names))} was left before its end while it held a nursery or "
        f"cancel scope, and then a scope around it was left. {ADVICE}"
    )


def _is_misnesting(error: BaseException) -> bool:
    """Return whether the error is Trio's report that scopes were not left in the reverse order of entering them."""
    return any(
        isinstance(leaf, RuntimeError | AssertionError)
        and any(words in str(leaf) for words in ("stack corrupted", "misnesting"))
        for leaf in leaves(error)
    )


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
        # A call from a thread (`trio.from_thread.run`) runs in a system task, which a system task has started.
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


def _ledger_here() -> Ledger | None:
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
