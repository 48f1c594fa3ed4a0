"""Posts the open questions of the runs of this node where other nodes read them."""

from __future__ import annotations

import logging

import orjson
import trio

from ..abc import BaseInterruptBackend, Lease, QuestionBoard
from ..errors import AgentAppError
from ..protocol.lifecycle import RunState
from .run import Run

__all__ = ["QuestionPoster"]

logger = logging.getLogger("trio_agentapp.runs")

RETRY = 1.0
"""Seconds between two attempts while the backend does not answer. The run itself does not wait for it."""


class QuestionPoster:
    """Keeps the record of each run equal to its open questions, with at most one task for a run.

    All open questions are posted at once, so a repeated or late call changes nothing that is right.
    """

    def __init__(self, backend: BaseInterruptBackend) -> None:
        self._board = QuestionBoard.of(backend)
        self._nursery: trio.Nursery | None = None
        self._busy: set[str] = set()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the nursery of the calls open until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def post_soon(self, run: Run) -> None:
        """Start to post the questions of `run`, unless a task does it already. Does not block."""
        if self._board is None or self._nursery is None or run.lease is None or run.run_id in self._busy:
            return
        self._busy.add(run.run_id)
        self._nursery.start_soon(self._post, self._board, run, run.lease)

    async def _post(self, board: QuestionBoard, run: Run, lease: Lease) -> None:
        posted: bytes | None = None
        failed = False
        try:
            while (wanted := _listed(run)) != posted and run.lifecycle.state is RunState.RUNNING:
                try:
                    await board.post_questions(lease, wanted)
                    posted = wanted
                except (AgentAppError, OSError) as exc:
                    if not failed:
                        logger.warning("run %s: other nodes do not see its questions yet: %s", run.run_id, exc)
                    failed = True
                    await trio.sleep(RETRY)
        finally:
            self._busy.discard(run.run_id)


def _listed(run: Run) -> bytes:
    questions = [question.listed() for question in run.open_questions]
    return orjson.dumps(questions) if questions else b""
