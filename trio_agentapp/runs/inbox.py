"""Fetches messages for `run.receive()` from the backend. Clients have sent them to other nodes."""

from __future__ import annotations

import logging

import trio

from ..abc import BaseInterruptBackend, Lease, RunInbox
from ..errors import AgentAppError
from ..protocol.message_json import decode_message
from .run import Run

__all__ = ["InboxFetcher"]

logger = logging.getLogger("trio_agentapp.runs")


class InboxFetcher:
    """Fetches messages for the runs of this node, each time in a task of its own nursery.

    The task is not a child of the run: a stop of the run would cancel a fetch that has taken messages out of the
    backend, and they would be lost.
    """

    def __init__(self, backend: BaseInterruptBackend) -> None:
        self._inbox = RunInbox.of(backend)
        self._nursery: trio.Nursery | None = None
        self._busy: set[str] = set()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the nursery of the fetches open until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def fetch_soon(self, run: Run) -> None:
        """Start to fetch the messages for `run` and put them into its inbox. Does not block.

        Nothing is started if a fetch for this run is in progress, or if the run does not own its session.
        """
        if self._nursery is not None and run.lease is not None and run.run_id not in self._busy:
            self._busy.add(run.run_id)
            self._nursery.start_soon(self._fetch, run, run.lease)

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
