"""One program that serves one app: what has to hold, then the launcher."""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from ..abc import DeployManager
from ..errors import ConfigurationError
from ..interrupts import LocalInterruptBackend
from ..protocol.deployment import Deployment
from ..protocol.hosts import is_loopback
from ..telemetry import configure_logging
from .settings import Settings, read_port

if TYPE_CHECKING:
    from .application import AgentApp

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "address",
    "check_exposure",
    "deploy_app",
    "note_address",
    "run_app",
    "serve_app",
]

logger = logging.getLogger("trio_agentapp.app")

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8090


def address(host: str | None, port: int | None) -> tuple[str, int]:
    """What was said, else `HOST` and `PORT` of the environment, else 127.0.0.1:8090.

    Raises:
        ConfigurationError: `HOST` cannot be listened on, or `PORT` is not a port.
    """
    if host == "":
        raise ConfigurationError("host must not be empty; for all addresses it is 0.0.0.0")
    return (
        _host_of_environment() if host is None else host,
        read_port(os.environ, DEFAULT_PORT) if port is None else port,
    )


def _host_of_environment() -> str:
    """`HOST`, which not only platforms set: conda's compilers do, to the name of a machine's kind."""
    host = os.environ.get("HOST")
    if host is None:
        return DEFAULT_HOST
    name = host.strip("[]")
    try:
        if not name:
            raise OSError(0, "it is empty")  # noqa: TRY301  said as the others are
        with socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET) as sock:
            sock.bind((name, 0))
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a name"
        raise ConfigurationError(
            f"HOST={host!r} of the environment cannot be listened on: {why}. Unset it, or say another: "
            "app.run(host=...), --host"
        ) from error
    return host


def check_exposure(app: AgentApp, host: str) -> None:
    """Warn of an address that others reach, where nobody is asked who they are."""
    if app.settings.authenticate is None and not is_loopback(host):
        logger.warning(
            "serving on %s without an authenticate hook: whoever reaches this port may start and stop runs "
            "of every user",
            host,
        )


def note_address(app: AgentApp, host: str) -> None:
    """Have an app that is served on a loopback address answer for the hosts of this machine only."""
    if is_loopback(host):
        app.hosts.listen_on_loopback(host)


def run_app(app: AgentApp, host: str | None, port: int | None, **options: Any) -> None:
    """What `AgentApp.run` does: serve, and exit with a code that is not 0; nothing while a launcher imports."""
    from ..server.launcher import imported_by_launcher

    if imported_by_launcher():
        return
    try:
        code = serve_app(app, host, port, **options)
    except ConfigurationError as error:
        sys.exit(f"{app.app_name} cannot start: {error}")
    if code:
        sys.exit(code)


async def deploy_app(app: AgentApp, deployer: DeployManager, **options: Any) -> Deployment:
    """What `AgentApp.deploy` does."""
    from ..server.launcher import imported_by_launcher

    if imported_by_launcher():
        return Deployment(deploy_id="", url="", mode="", pid=os.getpid())
    return await deployer.deploy(app, **options)


def serve_app(
    app: AgentApp,
    host: str | None = None,
    port: int | None = None,
    *,
    certfile: str | os.PathLike[str] | None = None,
    keyfile: str | os.PathLike[str] | None = None,
    workers: int = 1,
    listener: int | None = None,
) -> int:
    """Serve until told to stop; returns the exit code. To be called in the main thread.

    `listener`: the descriptor of a socket that listens on the address already.

    Raises:
        ConfigurationError: something that cannot work.
    """
    from ..server.launcher import launch
    from ..server.tls import tls_files

    configure_logging(app.log_format, node_id=app.node_id)
    host, port = address(host, port)
    certfile, keyfile = tls_files(certfile, keyfile)
    check_exposure(app, host)
    note_address(app, host)
    # The command line and deployments come this way too.
    app.check_workers(workers)
    if workers > 1 and not _shares_sessions(app.settings):
        raise ConfigurationError(
            f"{workers} workers would not know of each other's runs, and a stop could reach the wrong one; set "
            "interrupt_redis_url (or AGENTAPP_INTERRUPT_REDIS_URL), for instance to redis://localhost"
        )
    return launch(app, host=host, port=port, certfile=certfile, keyfile=keyfile, workers=workers, listener=listener)


def _shares_sessions(settings: Settings) -> bool:
    """Whether processes of this app know of each other's runs."""
    own = settings.interrupt_backend
    return settings.interrupt_redis_url is not None or not (own is None or isinstance(own, LocalInterruptBackend))
