"""`LocalDeployManager` serves apps on this machine."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Never

import attrs
import trio

from ..abc import DeployManager
from ..errors import ConfigurationError, DeployError
from ..protocol.deployment import Deployment, DeploymentMode, DeploymentStatus
from ..protocol.hosts import port_fault
from .asyncio_bridge import run_trio
from .detached import DetachedService
from .processes import Identity
from .readiness import local_url
from .records import Record, Records
from .services import SERVICES, Service

if TYPE_CHECKING:
    from ..app import AgentApp
    from ..server.config import ServerConfig

__all__ = ["LocalDeployManager"]

READY_TIMEOUT = 60.0
"""Seconds. Loading a model may take long, and after a restart of Redis the app waits for a lease to expire."""


class LocalDeployManager(DeployManager):
    """Serves apps on this machine, in one of two modes.

    "daemon_thread": in a thread of this process with an event loop of its own. It is joined when it is stopped, and
    drains when the program ends.
    "detached_process": in a process of its own, which stays when this one exits. Its record and its log are kept in
    the folder `home`: the argument, else `AGENTAPP_HOME`, else `trio-agentapp` in the XDG state folder.

    Host and port are the arguments, else `HOST` and `PORT` of the environment, else 127.0.0.1:8090. Port 0 means
    any free one; the deployment holds it.

    `shutdown_timeout`: the seconds that `stop` gives a service when it is told none. `startup_timeout`: the seconds
    in which `deploy` waits for a service to be ready, unless `ready_timeout` is given.

    Raises:
        ValueError: a mode that does not exist, a port outside 0 to 65535, or a timeout that is not 0 or more.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        mode: DeploymentMode | str = DeploymentMode.DAEMON_THREAD,
        *,
        home: str | os.PathLike[str] | None = None,
        shutdown_timeout: float | None = None,
        startup_timeout: float = READY_TIMEOUT,
    ) -> None:
        if shutdown_timeout is not None:
            _check_seconds("shutdown_timeout", shutdown_timeout)
        _check_seconds("startup_timeout", startup_timeout)
        if port is not None and (fault := port_fault(port)) is not None:
            raise ValueError(fault)
        self.host = host
        self.port = port
        self.mode = _mode(mode)
        self.shutdown_timeout = shutdown_timeout
        self.startup_timeout = startup_timeout
        self._records = Records(home)

    async def deploy(
        self,
        app: AgentApp | None = None,
        *,
        entrypoint: str | None = None,
        name: str | None = None,
        mode: DeploymentMode | str | None = None,
        environment: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        certfile: str | os.PathLike[str] | None = None,
        keyfile: str | os.PathLike[str] | None = None,
        ca_certs: str | os.PathLike[str] | None = None,
        cert_reqs: str | None = None,
        workers: int = 1,
        restart: bool = False,
        ready_timeout: float | None = None,
        **others: Never,
    ) -> Deployment:
        """Serve an app; returns when it answers that it is ready.

        `entrypoint`: where a detached process finds the app, as `agent.py:app`, `module:app` or a folder; found
        from the app itself if it is a global name of a module. `environment`, `args`, `workers`, `name`: of the
        detached process; its environment is this one's with these changes, `args` are its `sys.argv[1:]`, and
        `name` is shown in place of the app's. `restart`: a supervisor starts the process again when it crashes,
        after half a second and then after growing pauses, and cuts its log.

        Raises:
            DeployError: the address is busy (nothing was started then); the service ended, or was not ready within
                `ready_timeout` seconds, with the end of its log (nothing of it runs any more).
            ConfigurationError: the app cannot be found, an option has no meaning in this mode, or is set elsewhere
                (such as `endpoint_path`, on the app).
            TypeError: there is no such option.
        """
        # Imported here, so that commands that only list or stop services do not load the web server.
        from ..app.deploy_options import refuse_deploy_options
        from ..app.entrypoint import entrypoint_of
        from ..app.loading import load_app, resolved
        from ..app.serving import address, check_exposure
        from ..server.config import ServerConfig
        from ..server.tls import tls_files

        refuse_deploy_options(self, others)
        ready_timeout = self.startup_timeout if ready_timeout is None else ready_timeout
        _check_seconds("ready_timeout", ready_timeout)
        chosen = self.mode if mode is None else _mode(mode)
        if app is None and entrypoint is None:
            raise ConfigurationError("there is nothing to deploy: give an app or an entrypoint")
        host, port = address(self.host, self.port)
        config = ServerConfig()
        tls = tls_files(certfile, keyfile, ca_certs, cert_reqs)
        if tls is not None and tls.cert_reqs == "required":
            raise ConfigurationError(
                "a deployed service is asked whether it is ready, and that request has no certificate: set "
                "cert_reqs='optional', and authenticate=ClientCertificates(...) refuses other requests without one"
            )
        config.use_tls(tls)
        if chosen is DeploymentMode.DAEMON_THREAD:
            if environment or args or name or restart or workers != 1:
                raise ConfigurationError(
                    "environment, args, name, workers and restart belong to a process of its own: "
                    "mode='detached_process'"
                )
            from .program_exit import drain_at_exit, restore_exit

            drain_at_exit()
            try:
                app = app or load_app(str(entrypoint))
                return await run_trio(self._start_thread, app, config, host, port, ready_timeout)
            finally:
                # If no service was started, the program gets its own signal handling back.
                restore_exit()
        if app is not None:
            found = entrypoint_of(app) if entrypoint is None else resolved(entrypoint)
            check_exposure(app, host)
        else:
            found = resolved(str(entrypoint))
        with _listen(config, host, port) as listener:
            port = listener.getsockname()[1]
            deploy_id = self._records.new_id()
            record = Record(
                deploy_id=deploy_id,
                entrypoint=found,
                url=local_url(host, port, tls=config.ssl_enabled),
                host=host,
                port=port,
                log=str(self._records.log(deploy_id)),
                started_at=time.time(),
                launcher=Identity.own(),
                sys_path=[entry or os.getcwd() for entry in sys.path],
                **({} if tls is None else attrs.asdict(tls)),
                workers=workers,
                app_name=name or "",
            )
            complete = {**os.environ, **(environment or {}), "HOST": host, "PORT": str(port)}
            start = partial(self._start_process, restart=restart)
            return await run_trio(start, record, listener, complete, tuple(args), ready_timeout)

    async def stop(self, deploy_id: str, *, timeout: float | None = None) -> DeploymentStatus:
        """Drain a service, then end it. End it by force after `timeout` seconds.

        The default is the manager's `shutdown_timeout`; if that is None too, somewhat more than the app's
        `drain_timeout` and `cleanup_budget`. `deploy_id` may be the beginning of an id.
        """
        service = self._find(deploy_id)
        return await run_trio(service.stop, self.shutdown_timeout if timeout is None else timeout)

    async def status(self, deploy_id: str) -> DeploymentStatus:
        return await run_trio(self._find(deploy_id).look)

    async def list(self) -> Sequence[DeploymentStatus]:
        """The services in threads of this process, and all detached ones that have a record."""
        return await run_trio(self._list)

    async def logs(self, deploy_id: str, *, lines: int = 100) -> str:
        """The last lines of a detached service, at most the last MiB of its log."""
        if deploy_id in SERVICES:
            raise DeployError(f"{deploy_id} runs in this process and writes to its log")
        return self._records.get(deploy_id).log_tail(lines)

    async def scale(self, deploy_id: str, replicas: int) -> DeploymentStatus:
        """Refuse: the number of workers is chosen when the service is deployed."""
        self._find(deploy_id)
        raise DeployError(
            f"the number of workers of {deploy_id} is fixed; stop it, and deploy it again with --workers {replicas}"
        )

    def _find(self, deploy_id: str) -> Service:
        return SERVICES.get(deploy_id) or DetachedService(self._records, self._records.get(deploy_id))

    # The methods below need Trio.

    async def _start_thread(
        self, app: AgentApp, config: ServerConfig, host: str, port: int, ready_timeout: float
    ) -> Deployment:
        from ..app.serving import check_certificates, check_exposure, note_address
        from ..telemetry import configure_logging
        from .thread import ThreadService

        configure_logging(app.log_format, node_id=app.node_id, levels=app.log_level)
        check_certificates(app, asked=config.ca_certs is not None)
        check_exposure(app, host)
        note_address(app, host)
        port = _listen(config, host, port).getsockname()[1]
        url = local_url(host, port, tls=config.ssl_enabled)
        service = ThreadService(secrets.token_hex(4), app, config, url)
        await service.start(ready_timeout)
        mode = DeploymentMode.DAEMON_THREAD.value
        return Deployment(deploy_id=service.deploy_id, url=service.url, mode=mode, pid=os.getpid())

    async def _start_process(
        self,
        record: Record,
        listener: socket.socket,
        environment: Mapping[str, str],
        args: Sequence[str],
        ready_timeout: float,
        *,
        restart: bool,
    ) -> Deployment:
        self._records.prune()
        service = DetachedService(self._records, record)
        await service.start(listener, environment, args, ready_timeout, restart=restart)
        record = service.record
        mode = DeploymentMode.DETACHED_PROCESS.value
        pid = 0 if record.process is None else record.process.pid
        return Deployment(deploy_id=record.deploy_id, url=record.url, mode=mode, pid=pid)

    async def _list(self) -> Sequence[DeploymentStatus]:
        found: dict[str, DeploymentStatus] = {}

        async def look(service: Service) -> None:
            found[service.deploy_id] = await service.look()

        services: list[Service] = [*SERVICES.values()]
        services += [DetachedService(self._records, record) for record in self._records]
        async with trio.open_nursery() as nursery:
            for service in services:
                nursery.start_soon(look, service)
        return sorted(found.values(), key=lambda status: status.started_at)


def _check_seconds(name: str, seconds: object) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise ValueError(f"{name} must be 0 or more seconds, not {seconds!r}")


def _mode(mode: DeploymentMode | str) -> DeploymentMode:
    try:
        return DeploymentMode(mode)
    except ValueError:
        known = ", ".join(repr(each.value) for each in DeploymentMode)
        raise ValueError(f"mode {mode!r} is not known; known are {known}") from None


def _listen(config: ServerConfig, host: str, port: int) -> socket.socket:
    """Open the one socket of a service. It listens at once, so that no other process can take the address."""
    from ..server.config import BindError, bind_address

    config.bind = [bind_address(host, port)]
    try:
        return config.listen()
    except BindError as error:
        raise DeployError(str(error)) from error
