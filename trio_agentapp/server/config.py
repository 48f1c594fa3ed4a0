"""Hypercorn's configuration with other defaults, and the sockets that it binds."""

from __future__ import annotations

import errno
import logging
import math
import socket
import ssl

from hypercorn.config import Config, Sockets

from .tls import CERT_REQS, TLS

__all__ = ["BindError", "ServerConfig", "bind_address", "bind_error"]

log = logging.getLogger("trio_agentapp.server")


MAX_HEAD = 16 * 1024
"""Bytes of the incomplete head of an HTTP/1.1 request: twice what a browser sends with large cookies."""


class BindError(OSError):
    """The server cannot listen on an address. The message names the address."""


class ServerConfig(Config):
    """Hypercorn's configuration, with defaults for long streams that are often quiet.

    `read_timeout` stays None: it would cut a stream whose client has nothing to send.
    """

    accesslog = None
    backlog = 2048
    errorlog = log
    force_close_after: float = 5.0
    """Seconds that cancelled requests have to send their last frames. The runs were drained before."""
    graceful_timeout: float = 3.0
    h11_max_incomplete_size = MAX_HEAD
    header_timeout: float = 15.0
    """Seconds for the headers of a connection's first request, so that idle connections cannot pile up."""
    include_server_header = False
    max_connections: int = 20_000
    """Open connections. Further ones are closed at once: each costs memory and a file descriptor."""
    keep_alive_timeout = 75.0  # above the usual 60 s of load balancers, which must close first
    shutdown_timeout = math.inf  # the lifespan bounds itself, and the launcher's watchdog bounds everything
    ssl_handshake_timeout = 15.0
    startup_timeout = math.inf  # loading a model may take long; orchestrators have start-up probes
    tcp_user_timeout: float = 25.0
    """Seconds after which a peer that acknowledges nothing, or keeps its window closed, counts as gone (Linux)."""
    websocket_max_message_size = 2**20

    _sockets: Sockets | None = None

    def use_tls(self, tls: TLS | None) -> None:
        if tls is not None:
            self.certfile, self.keyfile, self.ca_certs = tls.certfile, tls.keyfile, tls.ca_certs
            self.verify_mode = None if tls.cert_reqs is None else CERT_REQS[tls.cert_reqs]

    def create_ssl_context(self) -> ssl.SSLContext | None:
        """Trust each CA of `ca_certs`, also an intermediate one.

        Otherwise its root would have to be trusted, and with it every other certificate of that root.
        """
        context = super().create_ssl_context()
        if context is not None:
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def create_sockets(self) -> Sockets:
        """Bind the sockets at the first call, and return the same ones later.

        Raises:
            BindError: an address cannot be bound.
        """
        if self._sockets is None:
            self._sockets = super().create_sockets()
        return self._sockets

    def listen(self) -> socket.socket:
        """Bind the one address of this configuration and listen on it; returns the socket.

        Raises:
            BindError: the address cannot be listened on. No socket is left open.
        """
        sockets = self.create_sockets()
        [listener] = (*sockets.secure_sockets, *sockets.insecure_sockets)
        try:
            listener.listen(self.backlog)
        except OSError as error:
            self.close_sockets()
            raise bind_error(self.bind[0], error) from error
        return listener

    def _create_sockets(self, binds: list[str], type_: int = socket.SOCK_STREAM) -> list[socket.socket]:
        sockets: list[socket.socket] = []
        for bind in binds:
            try:
                if bind.startswith(("unix:", "fd://")):
                    sockets += super()._create_sockets([bind], type_)
                else:
                    sockets.append(self._tcp_socket(bind))
            except OSError as error:
                for sock in sockets:
                    sock.close()
                raise bind_error(bind, error) from error
        for sock in sockets:
            if hasattr(socket, "TCP_USER_TIMEOUT") and sock.family in (socket.AF_INET, socket.AF_INET6):
                # Accepted sockets inherit this option.
                milliseconds = int(self.tcp_user_timeout * 1000)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        return sockets

    def _tcp_socket(self, bind: str) -> socket.socket:
        """Bind as Hypercorn does, and close the socket if it cannot be bound."""
        host, _, port = bind.rpartition(":")
        host = host.strip("[]")
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.workers > 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind((host, int(port)))
        except BaseException:
            sock.close()
            raise
        sock.setblocking(False)
        return sock

    def close_sockets(self) -> None:
        sockets, self._sockets = self._sockets, None
        if sockets is not None:
            for sock in (*sockets.secure_sockets, *sockets.insecure_sockets):
                sock.close()


def bind_address(host: str, port: int) -> str:
    """Join host and port as URLs do."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind_error(bind: str, error: OSError) -> BindError:
    if error.errno == errno.EADDRINUSE:
        reason = "the port is in use; choose another one with app.run(port=...), --port or PORT"
    elif error.errno == errno.EACCES:
        reason = f"{error.strerror}; ports from 1024 on need no privileges: app.run(port=...), --port or PORT"
    elif error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        reason = f"{error.strerror}; use an address of this machine: app.run(host=...), --host or HOST"
    else:
        reason = str(error.strerror)
    return BindError(f"Cannot listen on {bind}: {reason}")
