"""A run as Server-Sent Events over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Protocol, cast

import orjson
import trio
from quart import Response
from quart.wrappers import Request

from ..protocol.events import Event
from ..protocol.sse import DONE, KEEP_ALIVE, PREAMBLE, frame, spell
from ..runs import Delivery, Gap, Subscriber
from ..runs.runner import Watched
from ..runs.stream import BATCH_WEIGHT
from ..server.stream_body import StreamBody, event_stream_response
from .pace import Pace
from .run_access import wind_down

__all__ = [
    "EventStreamBody",
    "OwnEvents",
    "SettledSpelling",
    "Spelling",
    "hold_watch",
    "release_watch",
    "run_stream",
]

WATCH = "trio_agentapp.watch"
"""The key in the scope of a request under which its reader is kept, until the response takes it over."""


class Spelling(Protocol):
    """How one protocol writes the events of a run into a stream. Made anew for each stream; it may keep state."""

    preamble: bytes
    """The beginning of the stream: at least a comment, so that a client sees at once that it was accepted."""

    ended: bool
    """Whether the last frame of the protocol was written. The stream ends after it, even if the run continues."""

    def spell(self, event: Event | Gap) -> bytes:
        """Return the frames of an event; no bytes if the protocol has none for it. It must not raise or block."""

    def trailer(self) -> bytes:
        """Return what follows the terminal event."""


class SettledSpelling(Spelling, Protocol):
    """A spelling that may hold an event back to write it together with the next one."""

    def settle(self) -> bytes:
        """Return the frames that were held back. Called when no event follows at once."""


class OwnEvents:
    """Writes each event as its own JSON, as `POST /process` sends it."""

    preamble = PREAMBLE
    ended = False

    def __init__(self, *, done: bool = False) -> None:
        self._trailer = DONE if done else b""

    def spell(self, event: Event | Gap) -> bytes:
        return _gap(event) if isinstance(event, Gap) else frame(event)

    def trailer(self) -> bytes:
        return self._trailer


class EventStreamBody(StreamBody):
    """Yields one chunk per batch of events, and a keep-alive comment when there were no events for a while."""

    begins_at_once = True

    def __init__(self, subscriber: Subscriber, spelling: Spelling, *, on_wind_down: Callable[[], None]) -> None:
        self.subscriber = subscriber
        self._spelling = spelling
        self._spell = spelling.spell
        self._settle: Callable[[], bytes] | None = getattr(spelling, "settle", None)
        self._on_wind_down = on_wind_down
        self._begun = self._over = False
        self._unsent = b""
        """Frames of events that were taken and could not be written at once."""
        self._pace = Pace()
        # A client that reads too slowly is disconnected. It can resume after the last id that it has received.
        subscriber.on_stalled = self.cut
        subscriber.deliver = self._deliver

    async def __aenter__(self) -> EventStreamBody:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        self.subscriber.close()

    def __aiter__(self) -> EventStreamBody:
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begun = True
            # Events that exist already are sent in the same write.
            first = self._spelled(await self.subscriber.receive()) if self.subscriber.ready else b""
            return self._spelling.preamble + first
        while not self._over and (self._unsent or not self._spelling.ended):
            await self._pace.wait()
            try:
                while not (batch := await self.subscriber.receive()):
                    if self._unsent or self._spelling.ended:
                        break
                    if self.writer is None or not self.writer.pending:
                        return KEEP_ALIVE
                    await self.writer.flush()
            except trio.EndOfChannel:
                self._over = True
                if trailer := self._taken() + self._spelling.trailer():
                    return trailer
                break
            except trio.ClosedResourceError:
                # The stream ends without a terminal event, so the client knows that it must resume.
                break
            if data := self._taken() + self._spelled(batch):
                self._pace.note_write()
                return data
        raise StopAsyncIteration

    def _deliver(self, events: Sequence[Event]) -> Delivery:
        """Write new events from the run's task, while this body waits for them and has nothing else to send."""
        if self.writer is None or self._pace.in_burst:
            return Delivery.REFUSED
        data = self._spelled(events)
        sent = not data or (len(data) <= BATCH_WEIGHT and self.writer.write(data))
        if data and sent:
            self._pace.note_write()
        if not sent:
            # `spell` changes the state of the spelling, so these frames are kept and not made again.
            self._unsent = data
        return Delivery.SENT if sent and not self.writer.pending and not self._spelling.ended else Delivery.BEGUN

    def _spelled(self, events: Sequence[Event | Gap]) -> bytes:
        data = self._spell(events[0]) if len(events) == 1 else b"".join(map(self._spell, events))
        return data if self._settle is None else data + self._settle()

    def _taken(self) -> bytes:
        unsent, self._unsent = self._unsent, b""
        return unsent

    def wind_down(self) -> None:
        self._on_wind_down()


def run_stream(watched: Watched, spelling: Spelling, headers: Mapping[str, str]) -> Response:
    """Return the response that streams a run until its end, or until `spelling` has ended.

    The reader is closed with the response; `on_disconnect` then decides whether the run continues.
    """
    body = EventStreamBody(watched.subscriber, spelling, on_wind_down=partial(wind_down, watched))
    return event_stream_response(body, dict(headers))


def _gap(gap: Gap) -> bytes:
    return spell(orjson.dumps({"from": gap.start, "to": gap.stop}), event="gap")


def hold_watch(request: Request, subscriber: Subscriber) -> None:
    """Note the reader that was opened for a request, so that `release_watch` can close it."""
    _extras(request)[WATCH] = subscriber


def release_watch(request: Request, response: object) -> None:
    """Close the reader that was opened for a request, unless the response streams from it."""
    subscriber = _extras(request).pop(WATCH, None)
    body = getattr(response, "response", None)
    if subscriber is not None and not (isinstance(body, EventStreamBody) and body.subscriber is subscriber):
        subscriber.close()


def _extras(request: Request) -> dict[str, Any]:
    # ASGI defines the scope as a dict that servers and apps may add to.
    return cast(dict[str, Any], request.scope)
