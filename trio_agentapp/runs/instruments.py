"""Passes each report about runs on to all instruments of a node.

An exception of an instrument is logged and goes no further.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import trio

from ..abc import ClaimResult, Instrument, NodeFigures, RunEnd, RunFacts, TaskFacts
from ..protocol.ids import SessionKey
from ..protocol.tasks import TaskState
from .containment import contain

__all__ = ["Instruments"]

logger = logging.getLogger("trio_agentapp.runs")

NOTHING = nullcontext()
"""The context manager of each run on a node without instruments. It has no state, so one object serves all."""


class Instruments(Instrument):
    """Passes each report on to all instruments.

    An exception of an instrument is logged, once for each of its methods.
    """

    def __init__(self, instruments: Sequence[Instrument] = ()) -> None:
        self._instruments = tuple(instruments)
        self._reported: set[tuple[Instrument, str]] = set()

    async def serve(self, figures: Callable[[], NodeFigures]) -> None:
        async with trio.open_nursery() as nursery:
            for instrument in self._instruments:
                nursery.start_soon(self._serve, instrument, figures)

    async def _serve(self, instrument: Instrument, figures: Callable[[], NodeFigures]) -> None:
        try:
            (await contain(instrument.serve, figures)).unwrap()
        except Exception:
            self._report(instrument, "serve")

    def claiming(self, run: RunFacts) -> AbstractContextManager[object]:
        return self._entered("claiming", lambda each: each.claiming(run)) if self._instruments else NOTHING

    def claimed(self, run: RunFacts, result: ClaimResult, seconds: float) -> None:
        self._tell("claimed", lambda each: each.claimed(run, result, seconds))

    def running(self, run: RunFacts) -> AbstractContextManager[object]:
        return self._entered("running", lambda each: each.running(run)) if self._instruments else NOTHING

    def ended(self, run: RunFacts, end: RunEnd) -> None:
        self._tell("ended", lambda each: each.ended(run, end))

    def stopping(self, run_id: str | None, key: SessionKey | None) -> AbstractContextManager[object]:
        return self._entered("stopping", lambda each: each.stopping(run_id, key))

    def executing(self, task: TaskFacts) -> AbstractContextManager[object]:
        return self._entered("executing", lambda each: each.executing(task))

    def executed(self, task: TaskFacts, state: TaskState, error: str | None) -> None:
        self._tell("executed", lambda each: each.executed(task, state, error))

    def _tell(self, name: str, call: Callable[[Instrument], object]) -> None:
        for instrument in self._instruments:
            try:
                call(instrument)
            except Exception:
                self._report(instrument, name)

    @contextmanager
    def _entered(self, name: str, block: Callable[[Instrument], AbstractContextManager[object]]) -> Iterator[None]:
        entered: list[tuple[Instrument, AbstractContextManager[object]]] = []
        for instrument in self._instruments:
            try:
                manager = block(instrument)
                manager.__enter__()
            except Exception:
                self._report(instrument, name)
            else:
                entered.append((instrument, manager))
        error: BaseException | None = None
        try:
            yield
        except BaseException as exc:
            error = exc
            raise
        finally:
            for instrument, manager in reversed(entered):
                try:
                    # An instrument sees the exception; it cannot suppress it.
                    manager.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
                except BaseException as exc:
                    # A `contextmanager` raises the exception of its block again.
                    if exc is not error:
                        self._report(instrument, name)

    def _report(self, instrument: Instrument, name: str) -> None:
        if (instrument, name) not in self._reported:
            self._reported.add((instrument, name))
            logger.exception("%s.%s failed; runs are not affected (logged once)", type(instrument).__name__, name)
