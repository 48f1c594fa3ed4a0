"""`run` and `web`: serve an app until a signal stops them."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from .exits import ExitCode
from .options import App, CaCerts, CertFile, CertReqs, Entrypoint, Host, KeyFile, Port, Workers, chosen

__all__ = ["run", "web"]


def run(
    app: App,
    entrypoint: Entrypoint = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = 1,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart when Python files change; live runs are drained before.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the settings as JSON, without secrets, and exit.")
    ] = False,
    certfile: CertFile = None,
    keyfile: KeyFile = None,
    ca_certs: CaCerts = None,
    cert_reqs: CertReqs = None,
    _: Annotated[
        bool, typer.Option("--verbose", "-v", help="Accepted for old scripts: the log is always written.")
    ] = False,
) -> ExitCode:
    """Serve APP until SIGTERM or Ctrl-C, then drain."""
    from ..app.loading import load_app
    from ..app.serving import address, serve_app

    app = chosen(app, entrypoint)
    if print_config:
        from ..app.shown_settings import shown_settings
        from .terminal import write_json

        write_json(shown_settings(load_app(app).settings))
        return ExitCode.OK
    tls: dict[str, Any] = {"certfile": certfile, "keyfile": keyfile, "ca_certs": ca_certs, "cert_reqs": cert_reqs}
    if reload:
        from ..server.tls import tls_files, tls_of_environment
        from .reload import keep_reloading

        checked = tls_files(**tls_of_environment(tls))
        if workers > 1:
            raise typer.BadParameter("--reload serves with one worker")
        return keep_reloading(app, *address(host, port), tls=checked is not None)
    code = serve_app(load_app(app), host, port, workers=workers, **tls)
    return ExitCode.FAILED if code == 1 else ExitCode(code)


def web(
    app: App, entrypoint: Entrypoint = None, host: Host = None, port: Port = None, workers: Workers = 1
) -> ExitCode:
    """Serve APP as `run` does, with the chat page at /chat."""
    os.environ["AGENTAPP_WEB_UI"] = "1"
    return run(app, entrypoint, host, port, workers)
