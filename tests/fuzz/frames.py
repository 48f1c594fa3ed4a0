"""A WebSocket client that sends any bytes, and reads the frames of the server."""

from __future__ import annotations

import base64
import os
import select
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import suppress

import attrs

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "RawSocket",
    "close_payload",
    "frame",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
TIMEOUT = 20.0
MASK = b"\x12\x34\x56\x78"


@attrs.frozen
class Frame:
    opcode: int
    payload: bytes
    fin: bool = True

    @property
    def code(self) -> int | None:
        """The code of a close frame; None if it has none."""
        return struct.unpack("!H", self.payload[:2])[0] if self.opcode == CLOSE and self.payload else None


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """The bytes of one frame of a client, with a fixed mask."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    flag = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([flag | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([flag | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([flag | 127]) + struct.pack("!Q", len(payload))
    if not masked:
        return head + payload
    repeated = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    size = len(payload)
    turned = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
    return head + MASK + turned


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


class RawSocket:
    """A connection after its upgrade. Raises ConnectionError without an upgrade, or if it ends in a frame."""

    def __init__(
        self, port: int, path: str = "/ws", headers: Mapping[str, str] | None = None, *, timeout: float = TIMEOUT
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        key = base64.b64encode(os.urandom(16)).decode()
        fields = {
            "Host": f"127.0.0.1:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
            **(headers or {}),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._socket.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        while b"\r\n\r\n" not in self._buffer:
            if not self._fill():
                raise ConnectionError("the server has closed the connection in the upgrade")
        self.head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if not self.head.startswith(b"HTTP/1.1 101"):
            self.close()
            raise ConnectionError(f"no upgrade: {self.head[:200]!r}")

    def _fill(self) -> bool:
        data = self._socket.recv(65536)
        self._buffer += data
        return bool(data)

    def send(self, data: bytes, chop: int = 0) -> None:
        """Send bytes, in pieces of `chop` if it is given."""
        for start in range(0, len(data), chop or len(data) or 1):
            self._socket.sendall(data[start : start + (chop or len(data))])

    def receive(self) -> Frame | None:
        """Return the next frame of the server; None after the end of the connection. Raises TimeoutError."""
        head = self._take(2)
        if head is None:
            return None
        size = head[1] & 0x7F
        assert not head[1] & 0x80, "a server does not mask"
        if size == 126:
            size = struct.unpack("!H", self._take(2) or b"")[0]
        elif size == 127:
            size = struct.unpack("!Q", self._take(8) or b"")[0]
        return Frame(head[0] & 0x0F, self._take(size) or b"", bool(head[0] & 0x80))

    def _take(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            if not self._fill():
                if self._buffer or size != 2:
                    raise ConnectionError("the connection ended inside of a frame")
                return None
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def arrived(self, within: float) -> list[Frame | None]:
        """Return the frames that arrive `within` seconds or are there already; None in it: the connection ended."""
        found: list[Frame | None] = []
        select.select([self._socket], [], [], within)
        self._socket.settimeout(0)
        try:
            while not found or found[-1] is not None:
                if not self._buffer:
                    try:
                        if not self._fill():
                            found.append(None)
                            break
                    except BlockingIOError:
                        break
                self._socket.settimeout(TIMEOUT)
                found.append(self.receive())
                self._socket.settimeout(0)
        except ConnectionError:
            found.append(None)
        finally:
            self._socket.settimeout(TIMEOUT)
        return found

    def wait_close(self) -> list[Frame]:
        """Return the frames up to the close, and answer it. Raises ConnectionError or TimeoutError without one."""
        found: list[Frame] = []
        end = time.monotonic() + TIMEOUT
        while not found or found[-1].opcode != CLOSE:
            one = self.receive()
            if one is None:
                raise ConnectionError("the connection ended without a close")
            found.append(one)
            if time.monotonic() > end:
                raise TimeoutError("the server sends for ever")
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send(frame(CLOSE, found[-1].payload[:2]))
        return found

    def close(self) -> None:
        self._socket.close()
