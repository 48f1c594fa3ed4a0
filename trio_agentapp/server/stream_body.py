"""Response bodies that follow something live: a run, or the generator of an endpoint."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from quart import Response
from quart.wrappers.response import ResponseBody

from .direct import DirectWriter

__all__ = ["StreamBody", "event_stream_response"]


class StreamBody(ResponseBody):
    """A response body that follows something live, and can bring it to its end.

    Its iterator must not raise: what goes wrong belongs into the stream, as an event. What raises all the
    same is logged, and the client sees an incomplete answer.
    """

    writer: DirectWriter | None = None
    """Set while the body is sent, if parts of it may be written from other tasks than the one that iterates it."""

    _cut: Callable[[], None] | None = None

    def bind(self, cut: Callable[[], None]) -> None:
        """The connection that sends this body says how it can be cut."""
        self._cut = cut

    def cut(self) -> None:
        """Break the answer off, also in the middle of a write that its client does not take. Does not block."""
        if self._cut is not None:
            self._cut()

    @abstractmethod
    def wind_down(self) -> None:
        """Arrange to end by yourself soon; must not block.

        Called at most once, when the server leaves although the client is still there. The iterator goes on
        to be read until it ends, for at most the app's `wind_down_timeout`.
        """


def event_stream_response(body: StreamBody, headers: dict[str, str]) -> Response:
    response = Response(body, content_type="text/event-stream; charset=utf-8")
    # A stream lasts as long as its run; Quart would cut it, silently, after a minute.
    response.timeout = None
    response.headers["Cache-Control"] = "no-cache, no-transform"
    response.headers["X-Accel-Buffering"] = "no"
    response.headers.update(headers)
    return response
