"""Makes connections: finds the server, opens the stream, logs in."""

from __future__ import annotations

import os
import socket
import ssl

import trio
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from ..errors import ConfigurationError
from .connection import Connection, ServerInfo, reason_of
from .errors import LinkDown
from .packing import Command
from .replies import shaped, tells_to_reconnect
from .sentinel import discover_master
from .url import RedisURL, SentinelService, TCPAddress, UnixAddress

__all__ = ["Connector"]

CONNECT_TIMEOUT = 2.0
"""Seconds for one connection, including the Sentinels and the log-in."""

THREADS = 2
"""Threads for Sentinels and credential providers. They have their own limit, to leave Trio's common one free."""

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 15, 5, 3
"""Seconds, seconds, probes: a dead peer of an idle connection is noticed within 30 s."""


class Connector:
    """Connects to one server, as often as `connect` is called."""

    def __init__(
        self,
        url: str | RedisURL,
        *,
        role: str,
        credential_provider: CredentialProvider | None = None,
    ) -> None:
        self.url = url if isinstance(url, RedisURL) else RedisURL.parse(url)
        self.timeout = self.url.connect_timeout or CONNECT_TIMEOUT
        self.client_name = f"{self.url.client_name or 'trio-agentapp'}:{role}:{os.getpid()}"
        self._context = self.url.tls.context() if self.url.tls is not None else None
        self._credential_provider = credential_provider
        if credential_provider is not None and (self.url.username or self.url.password):
            raise ConfigurationError("Give the Redis credentials in the URL or by credential_provider, not both.")
        self._limiter: trio.CapacityLimiter | None = None

    async def connect(self) -> Connection:
        """Return a connection that is logged in, with its `server` set.

        Raises:
            LinkDown: another attempt may succeed.
            RedisError, ConfigurationError: the server refuses the log-in, or its certificate is not accepted.
        """
        place = str(self.url)
        try:
            with trio.fail_after(self.timeout):
                address = await self._find()
                place = str(address)
                return await self._connect_to(address)
        except trio.TooSlowError as error:
            raise LinkDown(f"No connection to Redis at {place} within {self.timeout:g} s") from error

    async def _connect_to(self, address: TCPAddress | UnixAddress) -> Connection:
        connection = await self._open(address)
        try:
            connection.server = await self._log_in(connection, address)
        except LinkDown as error:
            await connection.aclose()
            if isinstance(certificate := _certificate_error(error), ssl.SSLCertVerificationError):
                raise ConfigurationError(
                    f"The certificate of Redis at {address} is not accepted: {certificate.verify_message}"
                ) from error
            raise LinkDown(f"No connection to Redis at {address}: {error}") from error
        except BaseException:
            await connection.aclose()
            raise
        return connection

    async def _find(self) -> TCPAddress | UnixAddress:
        address = self.url.address
        if not isinstance(address, SentinelService):
            return address
        # The Sentinels together may take half of the time, so that dead ones leave time for the log-in.
        timeout = self.timeout / 2 / len(address.sentinels)
        return await discover_master(address, tls=self.url.tls, timeout=timeout, limiter=self._threads())

    async def _open(self, address: TCPAddress | UnixAddress) -> Connection:
        try:
            if isinstance(address, UnixAddress):
                return Connection(await trio.open_unix_socket(address.path))
            stream = await trio.open_tcp_stream(address.host, address.port)  # sets TCP_NODELAY
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
        except OSError as error:
            raise LinkDown(f"No connection to Redis at {address}: {reason_of(error)}") from error
        if self._context is None:
            return Connection(stream)
        # The TLS handshake comes with the first bytes. Redis closes without close_notify; RESP has its own framing.
        return Connection(
            trio.SSLStream(stream, self._context, server_hostname=address.host, https_compatible=True)
        )

    async def _log_in(self, connection: Connection, address: TCPAddress | UnixAddress) -> ServerInfo:
        if credentials := await self._credentials():
            # A password without a user belongs to the user "default". If that user needs no password, AUTH without
            # a user fails.
            user = ("default",) if len(credentials) == 1 else ()
            [answer] = await connection.exchange(("AUTH", *user, *credentials))
            _check(answer, address)
        commands: list[Command] = [("PING",), ("SELECT", self.url.database)]
        commands += [("CLIENT", "SETNAME", self.client_name), ("INFO", "server"), ("ROLE",)]
        pong, selected, _, info, role = await connection.exchange(*commands)
        _check(pong, address)
        if self.url.database:
            _check(selected, address)
        if isinstance(self.url.address, SentinelService) and isinstance(role, list) and role[0] != b"master":
            # Sentinels may still name a server that was demoted just now.
            raise LinkDown(f"it is a {role[0].decode()}, not the master")
        return _server_info(info, address=str(address))

    async def _credentials(self) -> tuple[str, ...]:
        if self._credential_provider is None:
            if self.url.username:
                return (self.url.username, self.url.password or "")
            return (self.url.password,) if self.url.password else ()
        try:
            given = await trio.to_thread.run_sync(
                self._credential_provider.get_credentials, abandon_on_cancel=True, limiter=self._threads()
            )
        except Exception as error:
            raise LinkDown(f"the credential provider failed: {error!r}") from error
        return tuple(given)

    def _threads(self) -> trio.CapacityLimiter:
        if self._limiter is None:
            self._limiter = trio.CapacityLimiter(THREADS)
        return self._limiter


def _check(reply: object, address: TCPAddress | UnixAddress) -> None:
    if isinstance(reply, RedisError):
        raise _explained(reply, address)


def _explained(error: RedisError, address: TCPAddress | UnixAddress) -> Exception:
    """Return the error with the server's address; LinkDown if it is a passing state of the server."""
    if isinstance(error, AuthenticationError | NoPermissionError):
        kind = type(error)
        return kind(f"Redis at {address} refused the log-in: {error}", status_code=error.status_code)
    if tells_to_reconnect(error):
        return LinkDown(f"it is not ready: {error}")
    return ResponseError(f"Redis at {address} refused: {error}", status_code=error.status_code)


def _certificate_error(error: BaseException | None) -> BaseException | None:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__
    return error


def _server_info(reply: object, *, address: str) -> ServerInfo:
    if isinstance(reply, RedisError):
        return ServerInfo(address=address)
    info = shaped("INFO", reply)
    return ServerInfo(
        address=address,
        run_id=info.get("run_id"),
        uptime=float(info["uptime_in_seconds"]) if "uptime_in_seconds" in info else None,
        version=str(info["redis_version"]) if "redis_version" in info else None,
    )
