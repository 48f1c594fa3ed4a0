"""The program of a detached service: `python -m trio_agentapp.deploy.service HOME ID [ARGUMENTS]`.

It writes itself into its record, loads the app and serves it on the socket that it was given. A clean end removes
the record; one that stays behind tells of another kind of end.
"""

from __future__ import annotations

import os
import sys

import attrs

from ..app import AgentApp
from ..app.loading import is_file, load_app
from ..app.serving import serve_app
from ..errors import ConfigurationError
from ..protocol.deployment import DeploymentMode
from ..server.workers import Inheritance
from .processes import LISTENER, Identity
from .records import Record, Records

__all__ = ["main"]

LEAVING = 30.0
"""Seconds beyond drain and cleanup that a service has to end: above the launcher's own watchdog."""


def main() -> None:
    home, deploy_id, *args = sys.argv[1:]
    records = Records(home)
    record = records.get(deploy_id)
    code = 1
    # The program is executed anew for each of several workers; the first process is the service.
    worker = Inheritance.offered()
    if not worker:
        # What a library may have left open to be inherited.
        os.closerange(LISTENER + 1, os.sysconf("SC_OPEN_MAX"))
        os.set_inheritable(LISTENER, False)
        record = attrs.evolve(record, process=Identity.own())
        records.write(record)
    try:
        app = _load(record, args)
        if not worker:
            stop_within = app.settings.drain_timeout + app.settings.cleanup_budget + LEAVING
            name = record.app_name or app.app_name
            records.write(attrs.evolve(record, app_name=name, stop_within=stop_within))
        code = serve_app(
            app,
            record.host,
            record.port,
            certfile=record.certfile,
            keyfile=record.keyfile,
            workers=record.workers,
            listener=LISTENER,
        )
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
    finally:
        if code == 0 and not worker:
            records.forget(deploy_id)
    sys.exit(code)


def _load(record: Record, args: list[str]) -> AgentApp:
    """The app, in a program that looks to it as the one that deployed it did."""
    place = record.entrypoint.rpartition(":")[0] or record.entrypoint
    sys.argv = [place if is_file(place) else "-m", *args]
    sys.path[:] = record.sys_path
    app = load_app(record.entrypoint)
    app.process_mode = DeploymentMode.DETACHED_PROCESS.value
    return app


if __name__ == "__main__":
    main()
