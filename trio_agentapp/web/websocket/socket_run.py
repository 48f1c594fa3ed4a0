"""One run on a WebSocket: its events are sent under the id that the client chose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
import trio

from ...errors import RequestError
from ...protocol.codec import encode_event
from ...protocol.events import Event, ResponseEvent
from ...protocol.lifecycle import RunState
from ...runs import Gap, Subscriber
from ...runs.runner import Watched
from ...server.problems import problem_body
from ..identity import Caller
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
                    # The run has ended, and the client has all of its events.
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
        """Send the events as they come; return the run's state at its end, None if the events broke off."""
        await writer.send(
            {"type": "started", "id": self.id, "run_id": watched.run_id, "session_id": watched.session_id}
        )
        before = b'{"type":"event","id":%b,"event":' % orjson.dumps(self.id)
        state: str | None = None
        while True:
            try:
                batch = await subscriber.receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                return state
            if not batch:
                # No event for a while. The pings of the socket are its keep-alive.
                continue
            await writer.write([_encoded(before, self.id, item) for item in batch])
            end = batch[-1]
            if isinstance(end, ResponseEvent) and end.terminal:
                state = STATES.get(end.status, RunState.ERROR).value


def error_message(id: str | None, error: RequestError) -> Mapping[str, Any]:
    body = problem_body(error)
    if error.retry_after is not None:
        body["retry_after"] = error.retry_after
    return {"type": "error", "id": id, "error": body}


def _encoded(before: bytes, id: str, item: Event | Gap) -> str:
    if isinstance(item, Gap):
        return orjson.dumps({"type": "gap", "id": id, "from": item.start, "to": item.stop}).decode()
    return (before + encode_event(item) + b"}").decode()
