"""HTTP/2 on one connection, which may have requests of many clients if it comes from a proxy."""

from __future__ import annotations

from contextlib import suppress

import h2.events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.protocol.h2 import H2Protocol

__all__ = ["HTTP2Protocol"]


class HTTP2Protocol(H2Protocol):
    """Keeps a connection with all of its streams in two cases in which Hypercorn ends it.

    - A response may end before the body of its request has arrived. For the next part of the body, Hypercorn looks
      up the stream, which is gone, and fails.
    - At request 1000 (`keep_alive_max_requests`) Hypercorn closes the connection at once.
    """

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        # Hypercorn uses this counter only for its limit.
        self.keep_alive_requests = 0
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                self._discard(event)
            else:
                await super()._handle_events([event])
        await self._flush()

    def _discard(self, data: h2.events.DataReceived) -> None:
        # All requests share the window of the connection. Data that is not acknowledged would reduce it for all of
        # them.
        self.connection.acknowledge_received_data(data.flow_controlled_length or 0, data.stream_id or 0)
        if data.stream_id in self.stream_buffers:
            return  # the end of the response has not been sent yet
        # The client may have ended the stream with this part.
        with suppress(ProtocolError):
            # Tell the client not to send the rest (RFC 9113, section 8.1).
            self.connection.reset_stream(data.stream_id or 0, ErrorCodes.NO_ERROR)
