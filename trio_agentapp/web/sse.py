"""A run as Server-Sent Events over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, cast

import orjson
import trio
from quart.wrappers import Request

from ..protocol.events import Event
from ..protocol.sse import DONE, KEEP_ALIVE, PREAMBLE, frame, spell
from ..runs import Delivery, Gap, Subscriber
from ..runs.stream import BATCH_WEIGHT
from ..server.stream_body import StreamBody

__all__ = ["EventStreamBody", "hold_watch", "release_watch"]


WATCH = "trio_agentapp.watch"
"""The key in a request's scope of the reader that was opened for it, until the response holds the reader."""

WINDOW = 0.002
"""Seconds between two writes of a stream in a burst: the events of that time are sent in one write."""

BURST = 8
"""Writes in quick succession that make a burst. Slower streams, and short ones, never wait."""


class EventStreamBody(StreamBody):
    """Yields one chunk per batch of events, and a keep-alive comment when there were no events for a while."""

    begins_at_once = True

    def __init__(self, subscriber: Subscriber, *, on_wind_down: Callable[[], None], done: bool = False) -> None:
        self.subscriber = subscriber
        self._on_wind_down = on_wind_down
        self._pending = [PREAMBLE]
        self._trailer = [DONE] if done else []
        self._written_at = 0.0
        self._in_succession = 0
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
        if self._pending:
            beginning = self._pending.pop()
            # What there is already belongs into the same write.
            return beginning + _spelled(await self.subscriber.receive()) if self.subscriber.ready else beginning
        if self._in_succession >= BURST:
            await trio.sleep_until(self._written_at + WINDOW)
        try:
            while not (batch := await self.subscriber.receive()):
                if self.writer is None or not self.writer.pending:
                    return KEEP_ALIVE
                await self.writer.flush()
        except trio.EndOfChannel:
            if self._trailer:
                return self._trailer.pop()
            raise StopAsyncIteration from None
        except trio.ClosedResourceError:
            # The stream ends without a terminal event, so the client knows that it must resume.
            raise StopAsyncIteration from None
        self._note_write()
        return _spelled(batch)

    def _deliver(self, events: Sequence[Event]) -> Delivery:
        """Write new events from the run's task, while this body waits for them and has nothing else to send."""
        if self.writer is None or self._in_succession >= BURST:
            return Delivery.REFUSED
        data = frame(events[0]) if len(events) == 1 else b"".join(map(frame, events))
        if len(data) > BATCH_WEIGHT or not self.writer.write(data):
            return Delivery.REFUSED
        self._note_write()
        return Delivery.BEGUN if self.writer.pending else Delivery.SENT

    def _note_write(self) -> None:
        now = trio.current_time()
        self._in_succession = self._in_succession + 1 if now - self._written_at < 2 * WINDOW else 0
        self._written_at = now

    def wind_down(self) -> None:
        self._on_wind_down()


def _spelled(batch: list[Event | Gap]) -> bytes:
    return b"".join([_gap(event) if isinstance(event, Gap) else frame(event) for event in batch])


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
