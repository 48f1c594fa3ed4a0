"""`LocalDeployManager`: services on this machine."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Never

import trio

from ..abc import DeployManager
from ..errors import ConfigurationError, DeployError
from ..protocol.deployment import Deployment, DeploymentMode, DeploymentStatus
from . import detached
from .awaiting import run_trio
from .processes import Identity
from .readiness import local_url
from .records import Record, Records
from .running import SERVICES

if TYPE_CHECKING:
    from ..app import AgentApp
    from ..server.loop import ServerConfig
    from .thread import ThreadService

__all__ = ["LocalDeployManager"]

READY_TIMEOUT = 60.0
"""Seconds: loading a model takes its time, and a Redis that has just started asks for a lease of patience."""


class LocalDeployManager(DeployManager):
    """Serves apps on this machine, in one of two modes.

    "daemon_thread": in a thread of this process with an event loop of its own, joined when it is stopped. It
    drains when the program ends.
    "detached_process": in a process of its own, executed anew, that stays when this one exits. Its record and its
    log lie in the folder `home`: the argument, else `AGENTAPP_HOME`, else `trio-agentapp` in the XDG state folder.

    Host and port: the argument, else `HOST` and `PORT` of the environment, else 127.0.0.1:8090. Port 0 is any free
    one; the deployment tells which.

    `shutdown_timeout`: the seconds that `stop` gives a service when it is told none. `startup_timeout`: the seconds
    in which `deploy` waits for a service to be ready, unless `ready_timeout` is given.

    Raises:
        ValueError: a mode that does not exist, or a timeout below 0.
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
        for name, seconds in (("shutdown_timeout", shutdown_timeout), ("startup_timeout", startup_timeout)):
            if seconds is not None and not seconds >= 0:
                raise ValueError(f"{name} must be 0 or more seconds, not {seconds!r}")
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
        mode: DeploymentMode | str | None = None,
        environment: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        certfile: str | os.PathLike[str] | None = None,
        keyfile: str | os.PathLike[str] | None = None,
        workers: int = 1,
        ready_timeout: float | None = None,
        **others: Never,
    ) -> Deployment:
        """Serve an app; returns when it answers that it is ready.

        `entrypoint`: where a detached process finds the app, as `agent.py:app` or `module:app`; found from the app
        itself if it is a global name of a module. `environment`, `args`, `workers`: of the detached process; its
        environment is this one's with these changes, and `args` are its `sys.argv[1:]`.

        Raises:
            DeployError: the address is busy (nothing was started then); the service ended, or was not ready within
                `ready_timeout` seconds, with the end of its log (nothing of it runs any more).
            ConfigurationError: the app cannot be found, an option has no meaning in this mode, or is set elsewhere
                (such as `endpoint_path`, on the app).
            TypeError: there is no such option.
        """
        # Whoever only looks after services does not pay for the web server.
        from ..app.deploy_options import refuse_deploy_options
        from ..app.entrypoint import entrypoint_of
        from ..app.loading import load_app, resolved
        from ..app.serving import address, check_exposure
        from ..server.loop import ServerConfig
        from ..server.tls import tls_files

        refuse_deploy_options(self, others)
        ready_timeout = self.startup_timeout if ready_timeout is None else ready_timeout
        chosen = self.mode if mode is None else _mode(mode)
        if app is None and entrypoint is None:
            raise ConfigurationError("there is nothing to deploy: give an app or an entrypoint")
        host, port = address(self.host, self.port)
        config = ServerConfig()
        certificate, key = tls_files(certfile, keyfile)
        if chosen is DeploymentMode.DAEMON_THREAD:
            if environment or args or workers != 1:
                raise ConfigurationError(
                    "environment, args and workers belong to a process of its own: mode='detached_process'"
                )
            from .thread import guard_the_end, leave_the_end

            guard_the_end()
            try:
                app = app or load_app(str(entrypoint))
                config.certfile, config.keyfile = certificate, key
                return await run_trio(self._start_thread, app, config, host, port, ready_timeout)
            finally:
                # Where nothing came of it, the program has its own signals again.
                leave_the_end()
        found = resolved(entrypoint) if entrypoint is not None else entrypoint_of(_present(app))
        if app is not None:
            check_exposure(app, host)
        listener = _listen(config, host, port)
        try:
            port = listener.getsockname()[1]
            deploy_id = self._records.new_id()
            record = Record(
                deploy_id=deploy_id,
                entrypoint=found,
                url=local_url(host, port, tls=certificate is not None),
                host=host,
                port=port,
                log=str(self._records.log(deploy_id)),
                started_at=time.time(),
                launcher=Identity.own(),
                sys_path=[entry or os.getcwd() for entry in sys.path],
                certfile=certificate,
                keyfile=key,
                workers=workers,
            )
            complete = {**os.environ, **(environment or {}), "HOST": host, "PORT": str(port)}
            return await run_trio(self._start_process, record, listener, complete, tuple(args), ready_timeout)
        finally:
            listener.close()

    async def stop(self, deploy_id: str, *, timeout: float | None = None) -> DeploymentStatus:
        """Drain, then end; what has not ended after `timeout` seconds is ended by force.

        None: the manager's `shutdown_timeout`; if that is None too, what the app's `drain_timeout` and
        `cleanup_budget` allow, and some more. `deploy_id` may be the beginning of one.
        """
        return await run_trio(self._stop, deploy_id, self.shutdown_timeout if timeout is None else timeout)

    async def status(self, deploy_id: str) -> DeploymentStatus:
        return await run_trio(self._status, deploy_id)

    async def list(self) -> Sequence[DeploymentStatus]:
        """Those of this process, and all detached ones of this user's records."""
        return await run_trio(self._list)

    # In Trio.

    async def _start_thread(
        self, app: AgentApp, config: ServerConfig, host: str, port: int, ready_timeout: float
    ) -> Deployment:
        from ..app.serving import check_exposure, note_address
        from ..telemetry import configure_logging
        from .thread import ThreadService

        configure_logging(app.log_format, node_id=app.node_id)
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
    ) -> Deployment:
        self._records.prune()
        done = await detached.start(
            self._records, record, listener, environment=environment, args=args, ready_timeout=ready_timeout
        )
        mode = DeploymentMode.DETACHED_PROCESS.value
        pid = 0 if done.process is None else done.process.pid
        return Deployment(deploy_id=done.deploy_id, url=done.url, mode=mode, pid=pid)

    async def _stop(self, deploy_id: str, timeout: float | None) -> DeploymentStatus:
        service = _service(deploy_id)
        if service is not None:
            return await service.stop(timeout)
        return await detached.stop(self._records, self._records.get(deploy_id), timeout)

    async def _status(self, deploy_id: str) -> DeploymentStatus:
        service = _service(deploy_id)
        if service is not None:
            return await service.look()
        return await detached.look(self._records.get(deploy_id))

    async def _list(self) -> Sequence[DeploymentStatus]:
        found: dict[str, DeploymentStatus] = {}

        async def look(known: ThreadService | Record) -> None:
            status = await (detached.look(known) if isinstance(known, Record) else known.look())
            found[known.deploy_id] = status

        everything = (*SERVICES.values(), *self._records)
        async with trio.open_nursery() as nursery:
            for known in everything:
                nursery.start_soon(look, known)
        return sorted(found.values(), key=lambda status: status.started_at)


def _mode(mode: DeploymentMode | str) -> DeploymentMode:
    try:
        return DeploymentMode(mode)
    except ValueError:
        known = ", ".join(repr(each.value) for each in DeploymentMode)
        raise ValueError(f"mode {mode!r} is not known; known are {known}") from None


def _present(app: AgentApp | None) -> AgentApp:
    assert app is not None  # noqa: S101  looked at before
    return app


def _service(deploy_id: str) -> ThreadService | None:
    return SERVICES.get(deploy_id)


def _listen(config: ServerConfig, host: str, port: int) -> socket.socket:
    """The one socket of a service. It listens already, so that the address is nobody else's from here on."""
    from ..server.loop import BindError, bind_address

    config.bind = [bind_address(host, port)]
    try:
        sockets = config.create_sockets()
        [listener] = (*sockets.secure_sockets, *sockets.insecure_sockets)
        listener.listen(config.backlog)
    except BindError as error:
        raise DeployError(str(error)) from error
    except OSError as error:
        config.close_sockets()
        raise DeployError(f"Cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
