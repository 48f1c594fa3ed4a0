"""The program of a detached service: `python -m trio_agentapp.deploy.service HOME ID [ARGUMENTS]`.

It writes its process into its record, loads the app and serves it on the inherited socket. After a clean end it
removes the record; a record that stays shows that the service has died.
"""

from __future__ import annotations

import os
import sys

from ..app import AgentApp
from ..app.loading import is_file, load_app
from ..app.serving import serve_app
from ..errors import ConfigurationError
from ..protocol.deployment import DeploymentMode
from ..server.workers import Inheritance
from .processes import LISTENER, Identity
from .records import Record, Records

__all__ = ["main"]

EXIT_MARGIN = 30.0
"""Seconds beyond drain and cleanup for a service to end: more than the launcher's watchdog allows."""


def main() -> None:
    home, deploy_id, *args = sys.argv[1:]
    records = Records(home)
    record = records.get(deploy_id)
    code = 1
    # Each of several workers executes this program too; the first process is the service.
    worker = Inheritance.offered()
    if not worker:
        # Close what a library may have left open and inheritable.
        os.closerange(LISTENER + 1, os.sysconf("SC_OPEN_MAX"))
        os.set_inheritable(LISTENER, False)
        record = records.update(deploy_id, process=Identity.own())
    try:
        app = _load(record, args)
        if not worker:
            stop_within = app.settings.drain_timeout + app.settings.cleanup_budget + EXIT_MARGIN
            name = record.app_name or app.app_name
            records.update(deploy_id, app_name=name, stop_within=stop_within)
        code = serve_app(
            app,
            record.host,
            record.port,
            certfile=record.certfile,
            keyfile=record.keyfile,
            ca_certs=record.ca_certs,
            cert_reqs=record.cert_reqs,
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
    """Load the app with the `sys.path` of the program that deployed it."""
    place = record.entrypoint.rpartition(":")[0] or record.entrypoint
    sys.argv = [place if is_file(place) else "-m", *args]
    sys.path[:] = record.sys_path
    app = load_app(record.entrypoint)
    app.process_mode = DeploymentMode.DETACHED_PROCESS.value
    return app


if __name__ == "__main__":
    main()
