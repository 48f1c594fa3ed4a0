"""What clients send to a run: messages for `run.receive()`, and answers to the questions of `run.ask()`."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..abc import MAX_INPUT
from ..protocol.message import Message
from .questions import MAX_QUESTIONS, Answer, Question, question_named_in

__all__ = ["RunInput"]

logger = logging.getLogger("trio_agentapp.runs")

INPUT_POLL = 1.0
"""Seconds between two fetches of input from other nodes while a handler waits for it. Wake-ups may be lost."""


class RunInput:
    """The inbox of one run, and its open questions.

    Args:
        fetch: starts to fetch what clients have sent to other nodes. It is called while the handler waits.
        post: starts to post the open questions for other nodes. It is called when one was opened or closed.
    """

    __slots__ = ("_arrived", "_fetch", "_inbox", "_post", "_run_id", "questions", "received")

    def __init__(self, run_id: str, *, fetch: Callable[[], object], post: Callable[[], object]) -> None:
        self.questions: tuple[Question, ...] = ()
        """The questions without an accepted answer, the oldest first."""
        self.received = 0
        """How many messages were fetched from the backend; the next fetch begins after these."""
        self._run_id = run_id
        self._fetch = fetch
        self._post = post
        # A list, since an empty deque takes 700 bytes. It is short.
        self._inbox: list[Message] = []
        self._arrived: trio.Event | None = None
        """Set when a message arrives, while the handler waits for one."""

    async def receive(self) -> Message:
        """See `Run.receive`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._inbox:
            if self._arrived is None:
                self._arrived = trio.Event()
            await self._wait(self._arrived)
        message = self._inbox.pop(0)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return message

    def give(self, message: Message) -> bool:
        """Pass a message to the question that it answers, or put it into the inbox.

        Returns False if the inbox is full. An answer is dropped if its question has one already, or is not open.
        """
        named = question_named_in(message)
        waiting = [asked for asked in self.questions if asked.waits and named in (None, asked.id)]
        if waiting:
            waiting[0].give(message)
        elif named is not None:
            logger.info("run %s: an answer was dropped, because its question is not open", self._run_id)
        elif len(self._inbox) < MAX_INPUT:
            self._inbox.append(message)
            if self._arrived is not None:
                self._arrived.set()
                self._arrived = None
        else:
            return False
        return True

    def expects(self, message: Message) -> bool:
        """Whether the message names no question, or one that is open."""
        named = question_named_in(message)
        return named is None or self.has_open(named)

    @property
    def has_room(self) -> bool:
        return bool(self.questions) or len(self._inbox) < MAX_INPUT

    def has_open(self, question_id: str) -> bool:
        """Whether the question with this id waits for its answer."""
        return any(asked.id == question_id and asked.waits for asked in self.questions)

    def open_question(
        self, question: str | Message, *, schema: Any = None, timeout: float | None = None, auth: bool = False
    ) -> Question:
        """Open a question, so that it gets answers from now on, and return it. The caller sends its message."""
        if len(self.questions) >= MAX_QUESTIONS:
            raise RuntimeError(f"the limit of open questions of a run is reached ({MAX_QUESTIONS})")
        asked = Question(question, schema=schema, timeout=timeout, auth=auth)
        self._set_questions((*self.questions, asked))
        return asked

    async def wait_answered(
        self, asked: Question, timeout: float | None, emit: Callable[[Message], Awaitable[object]]
    ) -> Answer | None:
        """Wait for the answer, send it to the readers, and return it.

        Returns None if there is none in `timeout` seconds.
        """
        answer = None
        try:
            with trio.move_on_after(math.inf if timeout is None else timeout):
                while answer is None:
                    while (given := asked.take()) is None:
                        assert isinstance(asked.answer, trio.Event)  # noqa: S101  nothing was given
                        await self._wait(asked.answer)
                    try:
                        answer = asked.read(given)
                    except ValueError as fault:
                        await emit(asked.message(str(fault)))
        finally:
            self._set_questions(tuple(each for each in self.questions if each is not asked))
        await emit(asked.reply(answer))
        return answer

    def _set_questions(self, questions: tuple[Question, ...]) -> None:
        self.questions = questions
        self._post()

    async def _wait(self, arrived: trio.Event) -> None:
        """Wait for the event, for `INPUT_POLL` seconds at most.

        Without it, fetch the input that other nodes received.
        """
        with trio.move_on_after(INPUT_POLL):
            await arrived.wait()
        if not arrived.is_set():
            self._fetch()
