"""`run`: serve an app until told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .exits import ExitCode

__all__ = ["App", "CertFile", "Host", "KeyFile", "Port", "Workers", "run"]

App = Annotated[
    str,
    typer.Argument(
        help="A file (agent.py) or a module (package.module), with the app's name if need be (agent.py:app)."
    ),
]

Host = Annotated[
    str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all.  [default: HOST, else 127.0.0.1]")
]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="0 for a free one.  [default: PORT, else 8090]")]
Workers = Annotated[int, typer.Option(min=1, help="Processes behind the port; several need Redis.")]
CertFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="For TLS: the certificate chain, as PEM.")
]
KeyFile = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="For TLS: its key, as PEM.")]


def run(
    app: App,
    host: Host = None,
    port: Port = None,
    workers: Workers = 1,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start anew when Python files change; live runs are drained before.")
    ] = False,
    certfile: CertFile = None,
    keyfile: KeyFile = None,
) -> ExitCode:
    """Serve APP until SIGTERM or Ctrl-C, then drain."""
    from ..app.loading import load_app
    from ..app.serving import address, serve_app

    if reload:
        from ..server.tls import tls_files
        from .reload import keep_reloading

        tls_files(certfile, keyfile)
        if workers > 1:
            raise typer.BadParameter("--reload serves with one worker")
        return keep_reloading(app, *address(host, port), tls=certfile is not None)
    code = serve_app(load_app(app), host, port, certfile=certfile, keyfile=keyfile, workers=workers)
    return ExitCode.FAILED if code == 1 else ExitCode(code)
