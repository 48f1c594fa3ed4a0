"""`run`: serves an app until a signal stops it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigurationError
from .exits import ExitCode

__all__ = ["App", "CertFile", "Entrypoint", "Host", "KeyFile", "Port", "Workers", "chosen", "run"]

App = Annotated[
    str,
    typer.Argument(
        help="A file (agent.py), a folder or a module (package.module); with :NAME for a certain app in it."
    ),
]

Entrypoint = Annotated[
    str | None,
    typer.Option("--entrypoint", "-e", help="The file of a folder.  [default: app.py, agent.py or main.py]"),
]
Host = Annotated[
    str | None,
    typer.Option("--host", "-h", help="Address to listen on; 0.0.0.0 for all.  [default: HOST, else 127.0.0.1]"),
]
Port = Annotated[
    int | None,
    typer.Option("--port", "-p", min=0, max=65535, help="0 for a free one.  [default: PORT, else 8090]"),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes behind the port; several need Redis.")]
CertFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="For TLS: the certificate chain, as PEM.")
]
KeyFile = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="For TLS: its key, as PEM.")]


def chosen(app: str, entrypoint: str | None) -> str:
    """Return the file `entrypoint` of the folder `app`, or `app` itself if there is no entrypoint.

    Raises:
        ConfigurationError: `app` is not a folder.
    """
    if entrypoint is None:
        return app
    if not os.path.isdir(app):
        raise ConfigurationError(f"--entrypoint {entrypoint} names a file of a folder, and {app} is not a folder")
    return os.path.join(app, entrypoint)


def run(
    app: App,
    entrypoint: Entrypoint = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = 1,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart when Python files change; live runs are drained before.")
    ] = False,
    certfile: CertFile = None,
    keyfile: KeyFile = None,
    _: Annotated[
        bool, typer.Option("--verbose", "-v", help="Accepted for old scripts: the log is always written.")
    ] = False,
) -> ExitCode:
    """Serve APP until SIGTERM or Ctrl-C, then drain."""
    from ..app.loading import load_app
    from ..app.serving import address, serve_app

    app = chosen(app, entrypoint)
    if reload:
        from ..server.tls import tls_files
        from .reload import keep_reloading

        tls_files(certfile, keyfile)
        if workers > 1:
            raise typer.BadParameter("--reload serves with one worker")
        return keep_reloading(app, *address(host, port), tls=certfile is not None)
    code = serve_app(load_app(app), host, port, certfile=certfile, keyfile=keyfile, workers=workers)
    return ExitCode.FAILED if code == 1 else ExitCode(code)
