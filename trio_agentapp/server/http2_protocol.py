"""HTTP/2 on one connection, on which a proxy may have the requests of many clients."""

from __future__ import annotations

from contextlib import suppress

import h2.events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.protocol.h2 import H2Protocol

__all__ = ["HTTP2Protocol"]


class HTTP2Protocol(H2Protocol):
    """Does not end a connection, with the streams of all requests on it, where Hypercorn does.

    - A refusal may be sent before the body has arrived. Hypercorn looks for the stream of the next part of the
      body, and fails.
    - At request 1000 (`keep_alive_max_requests`) Hypercorn closes the connection at once.
    """

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        # Counted by Hypercorn for its limit only.
        self.keep_alive_requests = 0
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                self._discard(event)
            else:
                await super()._handle_events([event])
        await self._flush()

    def _discard(self, data: h2.events.DataReceived) -> None:
        # The window of the connection is shared: what is not acknowledged is lost for the other requests.
        self.connection.acknowledge_received_data(data.flow_controlled_length or 0, data.stream_id or 0)
        if data.stream_id in self.stream_buffers:
            return  # the end of the response has not been sent yet
        # The client may have ended the stream with this part.
        with suppress(ProtocolError):
            # RFC 9113, section 8.1: it need not send the rest.
            self.connection.reset_stream(data.stream_id or 0, ErrorCodes.NO_ERROR)
