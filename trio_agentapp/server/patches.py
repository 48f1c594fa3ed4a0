"""Patches Hypercorn: replaces classes that it looks up in its own modules, which no setting can replace.

Everything else that differs from Hypercorn or quart-trio is a subclass that is passed in where they accept one. The
faults were seen in Hypercorn 0.18; `docs/discussion/stack.md` describes each, with the test that holds the
patch. Issue numbers are those of github.com/pgjones/hypercorn.
"""

from __future__ import annotations

import hypercorn.protocol as protocols
import hypercorn.trio.run as worker
from hypercorn import protocol
from hypercorn.protocol import h2, h11

from .http1_protocol import HTTP11
from .http2_buffer import BoundedBuffer
from .http2_protocol import HTTP2Protocol
from .tcp_connection import GuardedConnection
from .websocket_stream import WebSocketStream

__all__ = ["apply_patches"]


def apply_patches() -> None:
    """Replace the classes. Calling this again changes nothing.

    The app's lifespan calls it, which every server starts before it accepts a connection. Hypercorn looks the
    classes up later: the first when it begins to listen, the others when a request comes.
    """
    # All connections of a worker share a nursery, so an error in one ends the server (issues 225, 203, 329). A
    # cancelled sender loses bytes that other streams need, and the idle timer keeps a connection whose client has
    # gone (no issues known). Only the bare `hypercorn` command needs this patch. The server of this package has its
    # own connection class.
    worker.TCPServer = GuardedConnection  # type: ignore[attr-defined, assignment]

    # A request whose head is too large is refused below the app (no issue known), and heads of responses cost too
    # much: see `HTTP11`.
    protocols.H11Protocol = HTTP11  # type: ignore[attr-defined]

    # The buffer of an HTTP/2 stream has no limit (no issue known): see `BoundedBuffer`.
    h2.StreamBuffer = BoundedBuffer  # type: ignore[misc]

    # A part of a body after the response ends an HTTP/2 connection with all of its streams, and so does the 1000th
    # request (no issue known): see `HTTP2Protocol`.
    protocol.H2Protocol = HTTP2Protocol  # type: ignore[attr-defined]

    # WebSockets: pongs are not checked, compression cannot be switched off, there is no disconnect after a message
    # that is too large, and TCP is closed before the peer has read the close frame (no issue known): see
    # `WebSocketStream`.
    for module in (h11, h2):
        module.WSStream = WebSocketStream  # type: ignore[attr-defined]
