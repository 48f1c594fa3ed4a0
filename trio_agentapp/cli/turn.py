"""One message and its answer. Ctrl-C stops the run and shows its receipt; a second Ctrl-C exits."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ..errors import ConnectionLost
from ..protocol.exception_groups import leaves
from .exits import ExitCode, say
from .progress import progress
from .questions import Questions, question_in, show
from .target import Access, new_client
from .transcript import Transcript

if TYPE_CHECKING:
    from ..client import EventStream
    from ..protocol.lifecycle import StopReceipt

__all__ = ["Outcome", "Turn", "receipt_line"]

ENDS = {
    "completed": ExitCode.OK,
    "failed": ExitCode.FAILED,
    "rejected": ExitCode.REFUSED,
    "canceled": ExitCode.STOPPED,
}

LAST_EVENT = 5.0
"""Seconds to wait for the end of a stream after the receipt of its stop."""

QUICK_STOP = 0.5
"""Seconds that a stop without a long cleanup takes at most."""


def receipt_line(receipt: StopReceipt) -> str:
    """Describe a receipt in one sentence."""
    cleanup = "" if receipt.cleanup.value == "none" else f", cleanup {receipt.cleanup.value.replace('_', ' ')}"
    if receipt.stopped and not receipt.accepted:
        return f"Run {receipt.run_id} had been stopped already."
    if receipt.stopped:
        return f"Stopped run {receipt.run_id} in {receipt.latency_ms:.0f} ms{cleanup}."
    if receipt.accepted and receipt.state.terminal:
        return f"Run {receipt.run_id} ended before the stop took effect ({receipt.state.value}{cleanup})."
    if receipt.accepted:
        return f"Run {receipt.run_id} is being stopped."
    if receipt.run_id is not None:
        return f"Run {receipt.run_id} had ended already ({receipt.state.value})."
    return "No run of this session is running."


@attrs.frozen
class Outcome:
    code: ExitCode
    response: dict[str, Any] | None
    """The terminal response, if one was received."""
    left: bool
    """Ctrl-C was pressed twice."""


@attrs.frozen(kw_only=True)
class Turn:
    """One message to one agent."""

    url: str
    message: str
    session_id: str | None
    user_id: str | None
    access: Access
    silent: bool = False
    """Print nothing; the caller uses the terminal response."""
    aside: bool = False
    """Print reasoning and tool calls, too."""
    answers: bool = False
    """Answer questions of the run with the next lines of the input."""
    patient: bool = False
    """Reconnect for a minute if the connection is lost."""

    def take(self) -> Outcome:
        """Send the message, and print the answer until it ends.

        Raises:
            AgentAppError: the server refuses the request, or cannot be reached.
        """
        return trio.run(_Taken(self).take)


class _Taken:
    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._transcript = Transcript(aside=turn.aside)
        self._events: EventStream | None = None
        self._ended = trio.Event()
        self._receipt_shown = trio.Event()
        self._interrupted = False
        self._left = False

    async def take(self) -> Outcome:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._handle_signals, signals, nursery.cancel_scope)
                    await self._follow(nursery)
                    nursery.cancel_scope.cancel(reason="the answer is over")
            except* Exception as errors:
                error = next(leaves(errors))
                if isinstance(error, ConnectionLost) and self._events is not None:
                    run = f"--user {self._events.user_id or self._events.session_id} --run {self._events.run_id}"
                    say(f"The run may still be running: trio-agentapp status {self._turn.url} {run}")
                raise error from None
        response = None if self._events is None else self._events.response
        code = ExitCode.FAILED if response is None else ENDS[response["status"]]
        return Outcome(ExitCode.INTERRUPTED if self._interrupted else code, response, self._left)

    async def _follow(self, nursery: trio.Nursery) -> None:
        turn = self._turn
        async with new_client(turn.url, turn.access, patient=turn.patient) as client:
            with progress("Waiting for the answer") as begun:
                async with client.run(turn.message, session_id=turn.session_id, user_id=turn.user_id) as events:
                    self._events = events
                    questions = Questions(self._transcript, events.answer, partial(self._stop, events))
                    if turn.answers:
                        nursery.start_soon(questions.answer_forever)
                    async for event in events:
                        questions.take(event)
                        if (asked := question_in(event)) is not None and not turn.silent:
                            begun()
                            if not turn.answers:
                                show(asked, self._transcript)
                        if event["object"] == "content":
                            begun()
                        if not turn.silent:
                            self._transcript.show(event)
            if not turn.silent:
                self._transcript.end()
                self._say_end()
            self._ended.set()
            if self._interrupted:
                await self._receipt_shown.wait()

    def _say_end(self) -> None:
        response = None if self._events is None else self._events.response
        if response is not None and response["status"] != "completed" and not self._interrupted:
            error = response["error"] or {}
            say(f"The run ended as {response['status']}: {error.get('code')}: {error.get('message')}")

    async def _handle_signals(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        async with trio.open_nursery() as nursery:
            async for _ in signals:
                self._left, self._interrupted = self._interrupted, True
                if self._events is None and not self._left:
                    say("Cancelled before the answer began.")
                if self._events is None or self._left:
                    everything.cancel(reason="Ctrl-C")
                    return
                self._transcript.end()
                nursery.start_soon(self._stop, self._events)

    async def _stop(self, events: EventStream) -> None:
        """Stop the run and print the receipt, while `_follow` still reads the stream."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._explain)
            receipt = await events.stop(wait=True)
            nursery.cancel_scope.cancel(reason="stopped")
        # The last event is on its way, and ends the current line.
        with trio.move_on_after(LAST_EVENT):
            await self._ended.wait()
        say(receipt_line(receipt))
        self._receipt_shown.set()

    async def _explain(self) -> None:
        """Say what takes so long."""
        await trio.sleep(QUICK_STOP)
        say("Stopping: its cleanup is still running. Ctrl-C again exits without waiting for it.")
