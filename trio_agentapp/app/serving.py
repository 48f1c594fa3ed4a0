"""Serves one app in this process: checks the address and the settings, then starts the launcher."""

from __future__ import annotations

import logging
import os
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ConfigurationError
from ..interrupts import LocalInterruptBackend
from ..protocol.hosts import is_loopback, port_fault
from ..telemetry import configure_logging
from ..web.hosts import AllowedHosts
from .settings import Settings
from .variables import read_port

if TYPE_CHECKING:
    from ..server.launcher import Launchable

    class ServableApp(Launchable, Protocol):
        """The parts of an app that this module needs."""

        settings: Settings
        hosts: AllowedHosts
        log_format: str
        log_level: str | None

        def check_workers(self, workers: int) -> None:
            """Raise ConfigurationError if so many processes cannot serve the app."""


__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "address",
    "check_certificates",
    "check_exposure",
    "note_address",
    "run_app",
    "serve_app",
    "shares_sessions",
]

logger = logging.getLogger("trio_agentapp.app")

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8090


def address(host: str | None, port: int | None) -> tuple[str, int]:
    """Return the arguments, else `HOST` and `PORT` of the environment, else 127.0.0.1:8090.

    Raises:
        ConfigurationError: a server cannot listen on `HOST`, or the port is not valid.
    """
    if host == "":
        raise ConfigurationError("host must not be empty; for all addresses use 0.0.0.0")
    if port is not None and (fault := port_fault(port)) is not None:
        raise ConfigurationError(fault)
    return (
        _host_of_environment() if host is None else host,
        read_port(os.environ, DEFAULT_PORT) if port is None else port,
    )


def _host_of_environment() -> str:
    """Return `HOST` of the environment. Raises ConfigurationError if it is not an address of this machine.

    Platforms set it to an address, but the compilers of conda set it to a machine type.
    """
    host = os.environ.get("HOST")
    if host is None:
        return DEFAULT_HOST
    name = host.strip("[]")
    try:
        if not name:
            raise OSError(0, "it is empty")  # noqa: TRY301  reported as the others are
        with socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET) as sock:
            sock.bind((name, 0))
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a host name"
        raise ConfigurationError(
            f"HOST={host!r} of the environment cannot be listened on: {why}. Unset it, or give another "
            "host: app.run(host=...), --host"
        ) from error
    return host


def check_exposure(app: ServableApp, host: str) -> None:
    """Log a warning if other machines can reach the address and the app does not authenticate requests."""
    if app.settings.authenticate is None and not is_loopback(host):
        logger.warning(
            "serving on %s without an authenticate hook: everyone who can reach this port may start and stop runs "
            "of every user",
            host,
        )


def check_certificates(app: ServableApp, *, asked: bool) -> None:
    """Check that an `authenticate` hook that needs client certificates gets them.

    `asked`: the server requests them.

    Raises:
        ConfigurationError: it does not.
    """
    from ..auth.client_certificates import BEHIND_PROXY, NOT_ASKED, ClientCertificates

    if not isinstance(app.settings.authenticate, ClientCertificates):
        return
    if not asked:
        raise ConfigurationError(NOT_ASKED)
    if app.settings.trusted_proxies:
        raise ConfigurationError(BEHIND_PROXY)


def note_address(app: ServableApp, host: str) -> None:
    """On a loopback address, let the app answer requests for host names of this machine only."""
    if is_loopback(host):
        app.hosts.listen_on_loopback(host)


def run_app(app: ServableApp, host: str | None, port: int | None, **options: Any) -> None:
    """Serve the app as `serve_app` does, and exit with an error code if it fails."""
    try:
        code = serve_app(app, host, port, **options)
    except ConfigurationError as error:
        sys.exit(f"{app.app_name} cannot start: {error}")
    if code:
        sys.exit(code)


def serve_app(
    app: ServableApp,
    host: str | None = None,
    port: int | None = None,
    *,
    certfile: str | os.PathLike[str] | None = None,
    keyfile: str | os.PathLike[str] | None = None,
    ca_certs: str | os.PathLike[str] | None = None,
    cert_reqs: str | None = None,
    workers: int = 1,
    listener: int | None = None,
) -> int:
    """Serve until a signal stops the server, and return the exit code. Call it in the main thread.

    `listener`: the descriptor of a socket that already listens on the address. Without one, the environment counts
    for each argument of TLS that is None, as `AGENTAPP_CERTFILE` and so on.

    Raises:
        ConfigurationError: the address or the settings cannot work.
    """
    from ..server.launcher import launch
    from ..server.tls import tls_files, tls_of_environment

    configure_logging(app.log_format, node_id=app.node_id, levels=app.log_level)
    host, port = address(host, port)
    files = {"certfile": certfile, "keyfile": keyfile, "ca_certs": ca_certs, "cert_reqs": cert_reqs}
    tls = tls_files(**(tls_of_environment(files) if listener is None else files))
    check_certificates(app, asked=tls is not None and tls.ca_certs is not None)
    check_exposure(app, host)
    note_address(app, host)
    app.check_workers(workers)
    if workers > 1 and not shares_sessions(app.settings):
        raise ConfigurationError(
            f"{workers} workers would not know of each other's runs, and a stop could reach the wrong one; set "
            "interrupt_redis_url (or AGENTAPP_INTERRUPT_REDIS_URL), for instance to redis://localhost"
        )
    start = partial(launch, app, host=host, port=port, tls=tls, workers=workers, listener=listener)
    if workers == 1 or not app.settings.metrics:
        return start()
    from ..telemetry.metrics import forget_worker, shared_by_workers

    with shared_by_workers():
        return start(on_worker_gone=forget_worker)


def shares_sessions(settings: Settings) -> bool:
    """Whether the processes of this app share an interrupt backend."""
    own = settings.interrupt_backend
    return settings.interrupt_redis_url is not None or not (own is None or isinstance(own, LocalInterruptBackend))
