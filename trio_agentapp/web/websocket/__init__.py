"""`/ws`: many runs on one WebSocket. The messages are described in docs/reference/websocket.md.

route       accepts and closes sockets          messages  the messages of clients
socket      one socket: its client, its runs    writer    sends messages one after the other
socket_run  one run on a socket
"""

from .route import SUBPROTOCOL, SocketRoute

__all__ = ["SUBPROTOCOL", "SocketRoute"]
