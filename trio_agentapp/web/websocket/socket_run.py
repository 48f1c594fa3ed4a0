"""One run on a WebSocket: its events are sent under the id that the client chose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson
import trio

from ...errors import RequestError
from ...protocol.codec import encode_event
from ...protocol.events import Event, ResponseEvent
from ...protocol.lifecycle import RunState
from ...runs import Delivery, Gap, Subscriber
from ...runs.runner import Watched
from ...runs.stream import BATCH_WEIGHT
from ...server.problems import problem_body
from ..identity import Caller
from ..pace import Pace
from ..run_access import RunAccess
from .writer import SocketWriter

__all__ = ["SocketRun", "error_message"]

STATES = {"completed": RunState.FINISHED, "canceled": RunState.STOPPED}


class SocketRun:
    """A run that a client has started or attached to on this socket."""

    def __init__(self, id: str, run_id: str, session_id: str | None, caller: Caller) -> None:
        self.id = id
        self.run_id = run_id
        self.session_id = session_id
        self.caller = caller
        self.watched: Watched | None = None
        self.scope = trio.CancelScope()
        self._pace = Pace()
        self._state: str | None = None
        """The run's state at its end, once its last event was sent."""

    async def follow(
        self,
        begin: Callable[[], Awaitable[Watched | None]],
        access: RunAccess,
        writer: SocketWriter,
    ) -> Mapping[str, Any] | None:
        """Send the events of the run that `begin` starts or attaches to.

        Return the last message, `done` or an error, which is not sent yet. None if the client has detached.
        """
        with self.scope:
            try:
                self.watched = watched = await begin()
                if watched is None:
                    # No reader: the run has ended, and the client has all of its events.
                    known = await access.look(self.caller, self.run_id)
                    return {"type": "done", "id": self.id, "state": known.as_record.state.value}
            except RequestError as error:
                return error_message(self.id, error)
            self.run_id = watched.run_id
            with watched.subscriber as subscriber:
                state = await self._send_events(watched, subscriber, writer)
            return {"type": "done", "id": self.id, "state": state}
        return None

    async def _send_events(self, watched: Watched, subscriber: Subscriber, writer: SocketWriter) -> str | None:
        """Send the events as they come.

        Return the state of the run at its end; None if its terminal event did not come.
        """
        await writer.send(
            {"type": "started", "id": self.id, "run_id": watched.run_id, "session_id": watched.session_id}
        )
        before = b'{"type":"event","id":%b,"event":' % orjson.dumps(self.id)
        subscriber.deliver = partial(self._deliver, writer, before)
        try:
            while True:
                await self._pace.wait()
                try:
                    batch = await subscriber.receive()
                except (trio.EndOfChannel, trio.ClosedResourceError):
                    return self._state
                if batch:
                    await writer.write([_encoded(before, self.id, item).decode() for item in batch])
                    self._note(batch[-1])
                elif writer.pending:
                    await writer.flush()
                # If the batch is empty, there was no event for a while. No keep-alive is sent, as the socket sends
                # pings.
        finally:
            subscriber.deliver = None
            if writer.pending:
                # Send the rest of a message that was written in part, so that a client that detaches gets it whole.
                with trio.CancelScope(shield=True):
                    await writer.flush()

    def _deliver(self, writer: SocketWriter, before: bytes, events: Sequence[Event]) -> Delivery:
        """Write new events from the task of the run, while this one waits for them."""
        if self._pace.in_burst or sum(event.weight for event in events) > BATCH_WEIGHT:
            return Delivery.REFUSED
        if not writer.write_now([_encoded(before, self.id, event) for event in events]):
            return Delivery.REFUSED
        self._note(events[-1])
        return Delivery.BEGUN if writer.pending else Delivery.SENT

    def _note(self, last: Event | Gap) -> None:
        self._pace.note_write()
        if isinstance(last, ResponseEvent) and last.terminal:
            self._state = STATES.get(last.status, RunState.ERROR).value


def error_message(id: str | None, error: RequestError) -> Mapping[str, Any]:
    body = problem_body(error)
    if error.retry_after is not None:
        body["retry_after"] = error.retry_after
    return {"type": "error", "id": id, "error": body}


def _encoded(before: bytes, id: str, item: Event | Gap) -> bytes:
    if isinstance(item, Gap):
        return orjson.dumps({"type": "gap", "id": id, "from": item.start, "to": item.stop})
    return before + encode_event(item) + b"}"
