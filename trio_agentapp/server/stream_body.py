"""Response bodies that stream live data: the events of a run, or the items of an endpoint's generator."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from quart import Response
from quart.wrappers.response import ResponseBody

from .direct import DirectWriter

__all__ = ["WIND_DOWN_TIMEOUT", "StreamBody", "event_stream_response"]

WIND_DOWN_TIMEOUT = 35.0
"""Seconds that a stream has to end when the server shuts down, for an app without `wind_down_timeout`: a cleanup
budget of 30 s and a margin for the last frames."""


class StreamBody(ResponseBody):
    """A response body that can end itself when the server shuts down.

    Its iterator must not raise: an error is sent in the stream, as an event. If the iterator raises, the error is
    logged, and the client sees an incomplete response.
    """

    writer: DirectWriter | None = None
    """Set while the body is sent, if tasks other than the one that iterates it may write parts of it."""

    begins_at_once = False
    """Whether the iterator yields its first part without waiting. Then the head is sent together with it."""

    _cut: Callable[[], None] | None = None

    def bind(self, cut: Callable[[], None]) -> None:
        """Store `cut`, which cuts the response off. Called by the connection that sends this body."""
        self._cut = cut

    def cut(self) -> None:
        """Cut the response off, even while a write is blocked by a client that does not read. Does not block."""
        if self._cut is not None:
            self._cut()

    @abstractmethod
    def wind_down(self) -> None:
        """Arrange that the iterator ends soon. Must not block.

        Called at most once, when the server shuts down and the client is still connected. The iterator is read
        until it ends, for at most the app's `wind_down_timeout`.
        """


def event_stream_response(body: StreamBody, headers: dict[str, str]) -> Response:
    response = Response(body, content_type="text/event-stream; charset=utf-8")
    response.headers["Cache-Control"] = "no-cache, no-transform"
    response.headers["X-Accel-Buffering"] = "no"
    response.headers.update(headers)
    return response
