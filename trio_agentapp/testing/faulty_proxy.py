"""A TCP proxy before a server, such as Redis, which breaks connections on demand."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import trio

from ..redis.serving import serving_in_background
from .redis_server import TLSFiles

__all__ = ["FaultyProxy"]

_Stream = trio.abc.Stream


class FaultyProxy:
    """A TCP proxy that misbehaves on demand. Connect to its `port` instead of the server's."""

    def __init__(self, port: int, tls: TLSFiles | None) -> None:
        self.port = 0
        self.connections = 0
        """Connections accepted so far."""
        self._target = port
        self._tls = tls
        self._scopes: set[trio.CancelScope] = set()
        self._requests_pass, self._replies_pass = trio.Event(), trio.Event()
        self._delay = 0.0
        self._to_drop = 0
        self._refusing = False
        self.restore()

    @classmethod
    @asynccontextmanager
    async def open(cls, port: int, *, tls: TLSFiles | None = None) -> AsyncIterator[Self]:
        """Open a proxy. With `tls` it uses TLS to clients, with client certificates, and no TLS to the server."""
        proxy = cls(port, tls)
        async with serving_in_background(proxy._serve):
            yield proxy

    def blackhole(self) -> None:
        """Pass nothing in either direction. Connections stay open, and new ones are accepted."""
        self._requests_pass, self._replies_pass = trio.Event(), trio.Event()

    def hold_replies(self) -> None:
        """Pass requests to the server, and hold its replies until `restore`."""
        self._replies_pass = trio.Event()

    def drop_replies(self, count: int) -> None:
        """Lose the next `count` pieces of data from the server, as TCP delivers them."""
        self._to_drop = count

    def delay(self, seconds: float) -> None:
        """Delay each piece of data from the server."""
        self._delay = seconds

    def refuse(self) -> None:
        """Close all connections, and each new one at once."""
        self._refusing = True
        self.cut()

    def cut(self) -> None:
        """Close all connections."""
        for scope in self._scopes:
            scope.cancel()

    def restore(self) -> None:
        """Pass everything again, held data first."""
        self._requests_pass.set()
        self._replies_pass.set()
        self._delay, self._to_drop, self._refusing = 0.0, 0, False

    async def _serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            self.port = listener.socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, self._accept, [listener])
            task_status.started()

    async def _accept(self, plain: trio.SocketStream) -> None:
        if self._tls is None:
            await self._forward(plain)
            return
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self._tls.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self._tls.server, self._tls.server_key)
        await self._forward(trio.SSLStream(plain, context, server_side=True, https_compatible=True))

    async def _forward(self, client: _Stream) -> None:
        self.connections += 1
        async with client:
            if self._refusing:
                return
            with contextlib.suppress(OSError):
                server = await trio.open_tcp_stream("127.0.0.1", self._target)
                async with server, trio.open_nursery() as nursery:
                    self._scopes.add(nursery.cancel_scope)
                    try:
                        nursery.start_soon(self._pass_requests, client, server, nursery.cancel_scope)
                        await self._pass_replies(server, client)
                    finally:
                        self._scopes.discard(nursery.cancel_scope)
                        nursery.cancel_scope.cancel()

    async def _pass_requests(self, client: _Stream, server: _Stream, scope: trio.CancelScope) -> None:
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            async for data in client:
                await self._requests_pass.wait()
                await server.send_all(data)
            await self._requests_pass.wait()
        scope.cancel()

    async def _pass_replies(self, server: _Stream, client: _Stream) -> None:
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            async for data in server:
                await self._replies_pass.wait()
                if self._to_drop > 0:
                    self._to_drop -= 1
                    continue
                if self._delay:
                    await trio.sleep(self._delay)
                await client.send_all(data)
            await self._replies_pass.wait()
