"""One TCP connection: it fails alone, loses no bytes when a request is cancelled, and can be closed by force."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIReceiveCallable, ASGISendCallable, ConnectionState, Scope
from hypercorn.utils import parse_socket_addr

from ..late import LateLock
from ..refusals import note_refusal
from ..runs.failures import is_cancelled
from .config import ServerConfig
from .direct import DirectConnection, DirectWriter
from .extensions import (
    ABORT,
    CLIENT_CERTIFICATE,
    DIRECT_WRITER,
    MESSAGES,
    WEBSOCKET_STREAM,
    add_extension,
    drop_extensions,
    extension,
)
from .messages import Messages, RequestGroup
from .read_ahead import MAX_RECEIVED, ClientLeft, ReadAhead, receive
from .turns import Turns

__all__ = ["CLOSE_TIMEOUT", "Connection", "GuardedConnection", "close_socket"]

log = logging.getLogger("trio_agentapp.server")

CLOSE_TIMEOUT = 1.0
"""Seconds for the rest of the work when a socket is closed. It is local work only."""

LINGER = 1.0
"""Seconds in which the rest of an unwanted request is read and dropped.

Closing a socket with unread data resets the connection, and the client could lose the response.
"""

TURN_BYTES = 256 * 1024
"""Bytes that one connection may send before other tasks get their turn, if its socket never blocks."""


class _Requests:
    """The app as one connection sees it: adds `ABORT` to scopes, and can cancel the requests in progress.

    Reference cycles are broken when a request ends, so that its memory is freed at once. Otherwise the garbage
    collector would have to find some hundred objects for each request, and its pauses delay all streams.
    """

    def __init__(self, app: AppWrapper, abort: Callable[[], None]) -> None:
        self._app = app
        self._abort = abort
        self._live: dict[trio.CancelScope, Messages | None] = {}
        self._cancelled = False
        self.any_yet = False
        self.direct: DirectConnection | None = None
        """The connection, if its socket can be written to directly."""
        self.certificate: dict[str, Any] | None = None
        """See `CLIENT_CERTIFICATE`."""

    async def __call__(
        self,
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        sync_spawn: Callable[..., Any],
        call_soon: Callable[..., Any],
    ) -> None:
        self.any_yet = True
        add_extension(scope, ABORT, self._abort)
        if self.certificate is not None:
            add_extension(scope, CLIENT_CERTIFICATE, self.certificate)
        if self.direct is not None and scope["type"] != "lifespan" and scope["http_version"] == "1.1":
            if scope["type"] == "http":
                add_extension(scope, DIRECT_WRITER, DirectWriter(self.direct, send))
            elif (stream := extension(scope, WEBSOCKET_STREAM)) is not None:
                stream.direct = self.direct
        messages: Messages | None = extension(scope, MESSAGES)
        with trio.CancelScope() as request:
            self._live[request] = messages
            if self._cancelled:
                request.cancel(reason="the server is shutting down")
            try:
                await self._app(scope, receive, send, sync_spawn, call_soon)
            finally:
                del self._live[request]
                drop_extensions(scope)
                if messages is not None:
                    messages.close()

    def leave(self) -> None:
        """Drop the references to the connection, which has ended."""
        self._abort, self.direct = _do_nothing, None

    def cancel(self) -> None:
        self._cancelled = True
        for request in self._live:
            request.cancel(reason="the server is shutting down")
        self.note_shutdown()

    def note_shutdown(self) -> None:
        """Report the cancellation to the requests.

        Those that get their messages by calls have no task that would notice.
        """
        for messages in self._live.values():
            if messages is not None:
                messages.shut_down()


def close_socket(stream: Any) -> None:
    """Close the socket of a stream, plain or TLS, at once. Closing it again does nothing."""
    getattr(stream, "transport_stream", stream).socket.close()


def _do_nothing() -> None:
    pass


def _certificate_fault(cause: BaseException | None) -> str | None:
    """Return OpenSSL's reason if a handshake was refused because of the client's certificate; else None."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    none = isinstance(cause, ssl.SSLError) and cause.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    return "it presented none" if none else None


class GuardedConnection(TCPServer):
    """A connection under the bare `hypercorn` command, and the base class of `Connection`."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: ConnectionState,
        stream: trio.SSLStream[trio.SocketStream],
    ) -> None:
        self.requests = _Requests(app, self.close_socket)
        super().__init__(self.requests, config, context, state, stream)
        self._plain = isinstance(stream, trio.SocketStream)
        self._client_left = False
        self._read_all: trio.Event | None = None
        """Set when the client has ended its stream. Only there while a closing connection waits for that."""

    async def run(self) -> None:
        # As in Hypercorn, except for the task group. It is copied, since a call of the original would add a frame
        # that lasts as long as the connection.
        try:
            if self._plain or await self._do_handshake():
                try:
                    # Read them outside of the group, which would wrap the error if the client has gone already.
                    addresses = self._addresses()
                    async with RequestGroup() as self._task_group:
                        self.protocol = self._make_protocol(*addresses)
                        await self.protocol.initiate()
                        await self._begin_idle()
                        await self._read_data()
                except OSError:
                    pass
                finally:
                    await self._close()
        except BaseException as exc:
            if is_cancelled(exc):
                raise
            log.exception("A connection failed")
        finally:
            self._leave()

    async def _do_handshake(self) -> bool:
        """Do the handshake of TLS. Returns False if it failed."""
        try:
            with trio.fail_after(self.config.ssl_handshake_timeout):
                await self._shake_hands()
            stream: Any = self.stream
            if stream.context.verify_mode != ssl.CERT_NONE:
                self.requests.certificate = stream.getpeercert() or {}
        except trio.TooSlowError:
            note_refusal("head_time")
            return False
        except trio.BrokenResourceError as error:
            reason = _certificate_fault(error.__cause__)
        except (ValueError, ssl.SSLError):
            # OpenSSL trusts it, and Python cannot read it: a name is not UTF-8, for example.
            reason = "it cannot be read"
        else:
            return True
        if reason is not None:
            await self._refuse_certificate(reason)
        return False

    async def _shake_hands(self) -> None:
        await self.stream.do_handshake()

    async def _refuse_certificate(self, reason: str) -> None:
        """Log the refusal, and send the TLS alert to the client, which Trio leaves in its buffer."""
        stream: Any = self.stream
        with suppress(OSError):
            client, _ = self._addresses()
            where = "a Unix socket" if client is None else client[0]
            log.info("the certificate of the client at %s was refused: %s", where, reason)
        transport = stream.transport_stream
        with trio.move_on_after(LINGER), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await transport.send_all(stream._outgoing.read())
            await transport.send_eof()
            # The client may have sent a request with its certificate: see `LINGER`.
            while await transport.receive_some(MAX_RECEIVED):
                pass

    def _addresses(self) -> tuple[Any, Any]:
        """The addresses of the client and of the server. Raises OSError if the client has gone."""
        stream: Any = self.stream
        socket = stream.socket if self._plain else stream.transport_stream.socket
        return (
            parse_socket_addr(socket.family, socket.getpeername()),
            parse_socket_addr(socket.family, socket.getsockname()),
        )

    def _make_protocol(self, client: Any, server: Any) -> ProtocolWrapper:
        return ProtocolWrapper(
            self.app,
            self.config,
            self.context,
            self._task_group,
            ConnectionState(self.state),
            not self._plain,
            client,
            server,
            self.protocol_send,
            "http/1.1" if self._plain else self.stream.selected_alpn_protocol(),
        )

    async def _begin_idle(self) -> None:
        await self.idle_task.restart(self._task_group, self._idle_timeout)

    async def _end_idle(self) -> None:
        await self.idle_task.stop()

    def _leave(self) -> None:
        """Break the reference cycles of the connection at its end, see `_Requests`."""
        self.requests.leave()
        if hasattr(self, "protocol"):
            del self.protocol

    async def protocol_send(self, event: Event) -> None:
        """Send as Hypercorn does, except that a cancelled sender neither loses bytes nor hides a disconnect.

        The tasks of several streams call this, each in its own cancel scope, but the bytes belong to the
        connection: if a part were left out, the peer could not read the rest.
        """
        if isinstance(event, RawData):
            try:
                with trio.CancelScope(shield=True):
                    async with self.send_lock:
                        await self.stream.send_all(event.data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                # The stream is busy because another task is closing the connection, for which Hypercorn does not
                # take the lock.
                await self.report_disconnect()
        elif isinstance(event, Closed):
            await self._linger()
            try:
                await self._close()
            finally:
                # Usually the connection is closed because its only request is answered, and no stream needs the
                # report.
                if not self._has_ended_http1():
                    await self.report_disconnect()
        else:
            await super().protocol_send(event)

    async def _linger(self) -> None:
        """Wait for the rest of a request that was answered before its end. The connection's own task reads it."""
        protocol = getattr(self.protocol, "protocol", None)
        if not isinstance(protocol, H11Protocol) or protocol.connection.their_state is not h11.SEND_BODY:
            return
        with trio.move_on_after(LINGER), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if self._plain:
                await self.stream.send_eof()
            self._read_all = trio.Event()
            await self._read_all.wait()

    def _has_ended_http1(self) -> bool:
        """Return whether this is HTTP/1.1 and no request is in progress."""
        protocol = getattr(self.protocol, "protocol", None)
        return isinstance(protocol, H11Protocol) and protocol.stream is None

    async def report_disconnect(self) -> None:
        """Report to all streams that the peer has gone, in a task of the connection, which no sender cancels."""
        self._task_group.spawn(self.protocol.handle, Closed())
        # If the sender executes no other checkpoint, that task cannot run.
        await trio.lowlevel.checkpoint()

    def close_socket(self) -> None:
        """Close the socket at once, also while a task is blocked on it."""
        close_socket(self.stream)

    async def _read_data(self) -> None:
        protocol = self.protocol.protocol
        if isinstance(protocol, H11Protocol):
            protocol.can_read = ReadAhead(protocol, self.stream)
        try:
            while (data := await self._receive()) is not None:
                await self.protocol.handle(RawData(data))
                if not data:
                    break
        except ClientLeft:
            pass
        except BaseException:
            # The connection is cancelled as a whole, or has failed.
            self.requests.note_shutdown()
            raise
        if self._read_all is not None:
            self._read_all.set()
        await self.protocol.handle(Closed())
        # Otherwise the idle timer keeps the connection until its time-out.
        self._client_left = True
        await self._end_idle()

    async def _receive(self) -> bytes | None:
        """Receive the client's next bytes; b"" at the end of its stream, None when the connection is closed."""
        try:
            with trio.fail_after(self.config.read_timeout or inf):
                return bytes(await self.stream.receive_some(MAX_RECEIVED))
        except (trio.ClosedResourceError, trio.BrokenResourceError, trio.TooSlowError):
            return None

    async def _idle_timeout(self) -> None:
        with trio.move_on_after(0 if self._client_left else self.config.keep_alive_timeout):
            await self.context.terminated.wait()
        # Shielded, because closing sends `Updated` events, and these stop the task that runs this. Bounded, because
        # the closing message of TLS can block.
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await self._initiate_server_close()


class _Flights:
    """The transport of a handshake of TLS: what the client sends costs milliseconds, so it waits for its turn."""

    def __init__(self, transport: trio.SocketStream, turns: Turns) -> None:
        self.socket = transport.socket
        self.send_all = transport.send_all
        self._receive = transport.receive_some
        self._turns = turns

    async def receive_some(self) -> bytes | bytearray:
        data = await self._receive()
        if not self._turns.take():
            await self._turns.wait()
        return data


class Connection(GuardedConnection):
    """A connection of the server of this package. Its requests can be cancelled while it still sends."""

    config: ServerConfig

    def __init__(
        self,
        app: AppWrapper,
        config: ServerConfig,
        context: WorkerContext,
        state: ConnectionState,
        live: set[Connection],
        stream: trio.SSLStream[trio.SocketStream],
        *,
        turns: Turns,
    ) -> None:
        super().__init__(app, config, context, state, stream)
        # It takes half a KiB and is not needed: see `_begin_idle`.
        del self.idle_task
        self.send_lock = LateLock()  # type: ignore[assignment]
        self._live = live
        self._turns = turns
        self.unsent = b""
        self._holding = False
        if self._plain:
            self.requests.direct = self
        self._since_checkpoint = 0
        self._handshake: trio.CancelScope | None = None
        """The scope of the TLS handshake; None before it."""
        self._idle_until = inf
        """When the connection is closed, on Trio's clock; `inf` while it has a request."""
        self._reading: trio.CancelScope | None = None
        live.add(self)

    def _leave(self) -> None:
        # The socket is still open if the TLS handshake has failed.
        self.close_socket()
        self._live.discard(self)
        super()._leave()

    async def _do_handshake(self) -> bool:
        """Do the handshake of TLS, which a shutdown ends."""
        if self.context.terminated.is_set():
            return False
        with trio.CancelScope() as self._handshake:
            return await super()._do_handshake()
        return False

    async def _shake_hands(self) -> None:
        stream: Any = self.stream
        transport = stream.transport_stream
        stream.transport_stream = _Flights(transport, self._turns)
        try:
            await stream.do_handshake()
        finally:
            stream.transport_stream = transport

    async def _close(self) -> None:
        if not self._plain:
            await super()._close()
        elif self.stream.socket.fileno() >= 0:
            # Hypercorn sends the end of its stream first. Closing the socket does that, too.
            await self.stream.aclose()

    async def _begin_idle(self) -> None:
        # Hypercorn starts a task for the time-out. Here, reading the next request has a deadline instead.
        self._note_idle(True)

    async def _end_idle(self) -> None:
        pass

    def _note_idle(self, idle: bool) -> None:
        if not idle:
            self._idle_until = inf
        elif self.context.terminated.is_set():
            self._idle_until = -inf
        else:
            config = self.config
            seconds = config.keep_alive_timeout if self.requests.any_yet else config.header_timeout
            self._idle_until = trio.current_time() + seconds
        if self._reading is not None:
            self._reading.deadline = self._idle_until

    async def _receive(self) -> bytes | None:
        if self._plain and self.stream.socket.fileno() < 0:
            return None
        with trio.CancelScope(deadline=self._idle_until) as self._reading:
            try:
                data = await receive(self.stream)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                return None
        timed_out, self._reading = self._reading.cancelled_caught, None
        if not timed_out:
            if not self._turns.take():
                await self._turns.wait()
            return data
        if not self.requests.any_yet and not self.context.terminated.is_set():
            note_refusal("head_time")
        # Bounded, because the closing message of TLS can block.
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await self._initiate_server_close()
        return None

    def stop_waiting(self) -> None:
        """Close the connection if it has no request, or has not finished the handshake of TLS."""
        if self._handshake is not None:
            self._handshake.cancel(reason="the server is shutting down")
        if self._idle_until < inf:
            self._note_idle(True)

    async def abort(self) -> None:
        """Close the socket at once, and report to the requests that their client has gone."""
        self.close_socket()
        with trio.move_on_after(CLOSE_TIMEOUT):
            if hasattr(self, "protocol"):
                await self.protocol.handle(Closed())

    async def protocol_send(self, event: Event) -> None:
        """Write to the socket directly.

        What the socket does not accept at once is sent in Hypercorn's way, and waits.

        Most writes of a stream are accepted whole. They cost one system call in place of a lock, a shield and two
        checkpoints (`docs/discussion/hot-path.md`). TLS and WebSockets always use Hypercorn's way.
        """
        if type(event) is Updated:
            self._note_idle(event.idle)
            return
        if type(event) is not RawData or not self._plain or self.send_lock.locked():
            self._holding = False
            await super().protocol_send(event)
            return
        if self._is_websocket():
            # Send the rest of `write_now` first. The lock is free, so this task gets it before any other task runs.
            data, self.unsent = self.unsent + event.data, b""
            await super().protocol_send(RawData(data=data))
            return
        # The rest of a direct write comes first. No other task can have sent since: that write found the lock free.
        data, self.unsent = self.unsent + event.data, b""
        if self._holding:
            self._holding, self.unsent = False, data
            return
        try:
            sent = os.write(self.stream.socket.fileno(), data)
        except BlockingIOError:
            sent = 0
        except OSError:
            await self.report_disconnect()
            return
        if sent < len(data):
            # No other task may send between a part and its rest. The lock is free, and a shielded task gets it at
            # once.
            with trio.CancelScope(shield=True):
                await super().protocol_send(RawData(data=data[sent:]))
            return
        self._since_checkpoint += sent
        if self._since_checkpoint > TURN_BYTES:
            self._since_checkpoint = 0
            await trio.lowlevel.checkpoint()

    def write_now(self, data: bytes) -> bool:
        """Write `data` to the socket from any task, without blocking. Returns False if it accepted nothing.

        The rest that it does not accept is sent before anything else.
        """
        if self.unsent or self.send_lock.locked():
            return False
        try:
            sent = os.write(self.stream.socket.fileno(), data)
        except OSError:
            # The socket accepts nothing now, or the peer has gone. The task of the response finds out which.
            return False
        self.unsent = data[sent:]
        return True

    def hold(self) -> None:
        self._holding = True

    async def send(self, data: bytes) -> None:
        await self.protocol_send(RawData(data=data))

    def _is_websocket(self) -> bool:
        """Return whether this is a WebSocket.

        If it is refused, its task closes it, and needs checkpoints to run.
        """
        return isinstance(getattr(self.protocol.protocol, "stream", None), WSStream)
