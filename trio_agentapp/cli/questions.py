"""Questions of a run in the terminal: each is shown, and the next line of the input answers it."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from ..errors import RunEnded, ValidationError
from .exits import say
from .transcript import Transcript

__all__ = ["Questions", "question_in", "show"]

YES_OR_NO = {"yes": True, "y": True, "no": False, "n": False}


class Questions:
    """The open questions of one run, from its events.

    Args:
        transcript: prints them.
        send: called with the id of a question and the answer.
        give_up: called when the input has ended, so that nobody can answer.
    """

    def __init__(
        self,
        transcript: Transcript,
        send: Callable[[str, Any], Awaitable[None]],
        give_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._transcript = transcript
        self._send = send
        self._give_up = give_up
        self._open: dict[str, Mapping[str, Any]] = {}
        self._changed = trio.Event()
        self._prompt = trio.CancelScope()

    def take(self, event: Mapping[str, Any]) -> None:
        """Note which question an event opens or closes."""
        if (asked := question_in(event)) is not None:
            self._open[str(asked["id"])] = asked
            self._changed.set()
        elif event["object"] == "message" and event["type"] == "mcp_approval_response":
            closed = str(_data_of(event).get("approval_request_id"))
            if next(iter(self._open), None) == closed:
                self._prompt.cancel(reason="the question is closed")
            self._open.pop(closed, None)

    async def answer_forever(self) -> None:
        """Show one question after the other, and send the lines that are typed as answers."""
        while True:
            while not self._open:
                self._changed = trio.Event()
                await self._changed.wait()
            name, data = next(iter(self._open.items()))
            show(data, self._transcript)
            with trio.CancelScope() as self._prompt:
                line = await _read_line()
                self._transcript.typed()
                if line is None:
                    say("Nobody can answer: the input has ended.")
                    await self._give_up()
                    return
                self._open.pop(name, None)
                try:
                    await self._send(name, _value(line, data.get("schema")))
                except (RunEnded, ValidationError):
                    say("The question is not open any more.")
            if self._prompt.cancelled_caught:
                self._transcript.end()
                say("The question was closed.")


def question_in(event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the data of the question that an event asks, or None."""
    if event["object"] != "message" or event["type"] != "mcp_approval_request" or event["status"] != "completed":
        return None
    data = _data_of(event)
    return data if "id" in data else None


def show(data: Mapping[str, Any], transcript: Transcript) -> None:
    """Print a question, and what may be answered."""
    transcript.end()
    if fault := data.get("fault"):
        say(f"The answer was not accepted: {fault}")
    schema = data.get("schema") or {}
    choices = ["yes", "no"] if schema.get("type") == "boolean" else schema.get("enum", [])
    allowed = f" [{'/'.join(map(str, choices))}]" if choices else ""
    transcript.prompt(f"? {data.get('question', '')}{allowed}")


async def _read_line() -> str | None:
    """Read a line; None at the end of the input. At a terminal a cancellation ends the wait."""
    if sys.stdin.isatty():
        await trio.lowlevel.wait_readable(sys.stdin)
        line = sys.stdin.readline()
    else:
        # Lines of a pipe may be in Python's buffer already, so its readiness says nothing.
        line = await trio.to_thread.run_sync(sys.stdin.readline)
    return line.rstrip("\n") if line else None


def _data_of(event: Mapping[str, Any]) -> Mapping[str, Any]:
    for part in event.get("content") or ():
        if part["type"] == "data" and isinstance(part["data"], Mapping):
            data: Mapping[str, Any] = part["data"]
            return data
    return {}


def _value(line: str, schema: Any) -> Any:
    kind = schema.get("type") if isinstance(schema, Mapping) else "string"
    if kind == "boolean":
        return YES_OR_NO.get(line.strip().lower(), line)
    if kind in ("string", None):
        return line
    try:
        return json.loads(line)
    except ValueError:
        return line
