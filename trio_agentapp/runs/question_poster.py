"""Writes the open questions of this node's runs into the backend, where other nodes read them."""

from __future__ import annotations

import logging
from functools import partial

import orjson
import trio

from ..abc import BaseInterruptBackend, Lease, QuestionBoard
from ..errors import AgentAppError
from ..protocol.lifecycle import RunState
from .run import Run
from .run_calls import RunCalls

__all__ = ["QuestionPoster"]

logger = logging.getLogger("trio_agentapp.runs")

RETRY = 1.0
"""Seconds between two attempts while the backend does not answer. The run itself does not wait for it."""


class QuestionPoster(RunCalls):
    """Keeps the questions in the record of each run up to date, with at most one task for a run.

    Each call writes all open questions of a run, so a repeated or late call does no harm.
    """

    def __init__(self, backend: BaseInterruptBackend) -> None:
        super().__init__()
        self._board = QuestionBoard.of(backend)

    def post_soon(self, run: Run) -> None:
        """Start to post the questions of `run`, unless a task does it already. Does not block."""
        if self._board is not None:
            self.call_soon(run, partial(self._post, self._board))

    async def _post(self, board: QuestionBoard, run: Run, lease: Lease) -> None:
        posted: bytes | None = None
        failed = False
        while (wanted := _listed(run)) != posted and run.lifecycle.state is RunState.RUNNING:
            try:
                await board.post_questions(lease, wanted)
                posted = wanted
            except (AgentAppError, OSError) as exc:
                if not failed:
                    logger.warning("run %s: other nodes do not see its questions yet: %s", run.run_id, exc)
                failed = True
                await trio.sleep(RETRY)


def _listed(run: Run) -> bytes:
    questions = [question.listed() for question in run.input.questions]
    return orjson.dumps(questions) if questions else b""
