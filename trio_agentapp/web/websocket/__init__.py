"""`/ws`: many runs on one WebSocket. The messages are described in docs/reference/websocket.md.

route      accepts and closes a socket         messages  what clients send
socket     one socket, and what it may hold    writer    sends messages one after the other
socket_run one run on a socket                 close     ends a socket with a code
"""

from .route import SUBPROTOCOL, SocketRoute

__all__ = ["SUBPROTOCOL", "SocketRoute"]
