"""One message and its answer. Ctrl-C stops the run and shows its receipt; the second one leaves."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ..errors import ConnectionLost
from .exits import ExitCode, say
from .progress import progress
from .target import new_client
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

SOON = 0.5
"""Seconds in which an ordinary stop is over."""


def receipt_line(receipt: StopReceipt) -> str:
    """A receipt as a person reads it."""
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
    """The terminal response, if it came."""
    left: bool
    """Ctrl-C was pressed twice."""


@attrs.frozen(kw_only=True)
class Turn:
    """What is asked, of whom."""

    url: str
    message: str
    session_id: str | None
    user_id: str | None
    token: str | None = None
    silent: bool = False
    """Show nothing; the terminal response is what is wanted."""
    aside: bool = False
    patient: bool = False

    def take(self) -> Outcome:
        """Ask, and show the answer until it ends.

        Raises:
            AgentAppError: refused, or out of reach.
        """
        return trio.run(_Taken(self).take)


class _Taken:
    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._transcript = Transcript(aside=turn.aside)
        self._events: EventStream | None = None
        self._over = trio.Event()
        self._told = trio.Event()
        self._interrupted = False
        self._left = False

    async def take(self) -> Outcome:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._obey, signals, nursery.cancel_scope)
                    await self._follow()
                    nursery.cancel_scope.cancel(reason="the answer is over")
            except* Exception as errors:
                error = _first(errors)
                if isinstance(error, ConnectionLost) and self._events is not None:
                    run = f"--user {self._events.user_id or self._events.session_id} --run {self._events.run_id}"
                    say(f"The run may go on: trio-agentapp status {self._turn.url} {run}")
                raise error from None
        response = None if self._events is None else self._events.response
        code = ExitCode.FAILED if response is None else ENDS[response["status"]]
        return Outcome(ExitCode.INTERRUPTED if self._interrupted else code, response, self._left)

    async def _follow(self) -> None:
        turn = self._turn
        async with new_client(turn.url, turn.token, patient=turn.patient) as client:
            with progress("Waiting for the answer") as begun:
                async with client.run(turn.message, session_id=turn.session_id, user_id=turn.user_id) as events:
                    self._events = events
                    async for event in events:
                        if event["object"] == "content":
                            begun()
                        if not turn.silent:
                            self._transcript.show(event)
            if not turn.silent:
                self._transcript.end()
                self._tell_end()
            self._over.set()
            if self._interrupted:
                await self._told.wait()

    def _tell_end(self) -> None:
        response = None if self._events is None else self._events.response
        if response is not None and response["status"] != "completed" and not self._interrupted:
            error = response["error"] or {}
            say(f"The run ended as {response['status']}: {error.get('code')}: {error.get('message')}")

    async def _obey(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        async with trio.open_nursery() as nursery:
            async for _ in signals:
                self._left, self._interrupted = self._interrupted, True
                if self._events is None and not self._left:
                    say("Given up before the answer began.")
                if self._events is None or self._left:
                    everything.cancel(reason="Ctrl-C")
                    return
                self._transcript.end()
                nursery.start_soon(self._stop, self._events)

    async def _stop(self, events: EventStream) -> None:
        """The stream is read on meanwhile, and its client stays until the receipt is there."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._explain)
            receipt = await events.stop(wait=True)
            nursery.cancel_scope.cancel(reason="stopped")
        # Its last event is on the way, and ends the line that is begun.
        with trio.move_on_after(LAST_EVENT):
            await self._over.wait()
        say(receipt_line(receipt))
        self._told.set()

    async def _explain(self) -> None:
        """What takes so long."""
        await trio.sleep(SOON)
        say("Stopping: its cleanup is under way. Ctrl-C again leaves without waiting for it.")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
