"""Messages for runs of this node that arrived at another: fetched in tasks that no stop of a run cuts short."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from ..abc import BaseInterruptBackend, Lease, RunInbox
from ..errors import AgentAppError
from ..protocol.stored import decode_message
from .run import Run

__all__ = ["InboxFetcher"]

logger = logging.getLogger("trio_agentapp.runs")


class InboxFetcher:
    """One for each node; `nursery` is where it works, None while it does not."""

    def __init__(self, backend: BaseInterruptBackend, nursery: Callable[[], trio.Nursery | None]) -> None:
        self._inbox = RunInbox.of(backend)
        self._nursery = nursery
        self._busy: set[str] = set()

    def fetch_soon(self, run: Run) -> None:
        """Fetch what has come for `run`, unless that is being done."""
        nursery = self._nursery()
        if nursery is not None and run.lease is not None and run.run_id not in self._busy:
            self._busy.add(run.run_id)
            nursery.start_soon(self._fetch, run, run.lease)

    async def _fetch(self, run: Run, lease: Lease) -> None:
        try:
            if self._inbox is not None and run.has_room_for_input:
                for raw in await self._inbox.take_input(lease, run.input_received):
                    if not run.give_input(decode_message(raw)):
                        break
                    run.input_received += 1
        except (AgentAppError, OSError) as exc:
            logger.warning("run %s: input could not be fetched: %s", run.run_id, exc)
        finally:
            self._busy.discard(run.run_id)
