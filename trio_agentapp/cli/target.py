"""The target of a command: a URL, a deployment, or an app that is served for the command."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConfigurationError, DeployError
from .progress import progress

if TYPE_CHECKING:
    import ssl

    from ..client import AgentClient

__all__ = ["Access", "deployments", "is_url", "new_client", "reached", "url_of"]


def deployments(incomplete: str) -> list[tuple[str, str]]:
    """Complete the id of a deployment in a shell; each id comes with the name of its app."""
    from ..deploy.records import Records

    return [(each.deploy_id, each.app_name) for each in Records() if each.deploy_id.startswith(incomplete)]


HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}(/.*)?")
"""A URL without its scheme, as typed in a browser. It cannot be an app, whose name is no number."""


def is_url(target: str) -> bool:
    return target.startswith(("http://", "https://")) or HOST_AND_PORT.fullmatch(target) is not None


def url_of(target: str) -> str | None:
    """Return the URL of a target: itself, or the URL of the deployment that has this id; None for an app.

    Raises:
        ConfigurationError: it is a URL of another scheme than HTTP.
    """
    if is_url(target):
        return (target if "://" in target else f"http://{target}").rstrip("/")
    if "://" in target:
        raise ConfigurationError(f"{target!r} is not a URL of HTTP")
    from ..deploy.records import Records

    try:
        return Records().get(target).url
    except DeployError:
        return None


@contextmanager
def reached(target: str) -> Iterator[str]:
    """Yield a URL of the target. An app is served in this process inside the block, on a free port.

    Raises:
        ConfigurationError: the app does not exist.
        DeployError: the app cannot be started.
    """
    url = url_of(target)
    if url is not None:
        yield url
        return
    import trio

    from ..deploy import LocalDeployManager
    from ..telemetry import configure_logging

    # Show its warnings, but not that it has started, unless the command has set a lower level.
    configure_logging(levels="warning" if logging.getLogger().level == logging.WARNING else None)
    manager = LocalDeployManager(host="127.0.0.1", port=0)

    async def deploy() -> tuple[str, str]:
        service = await manager.deploy(entrypoint=target)
        return service.deploy_id, service.url

    with progress(f"Starting {target}"):
        deploy_id, url = trio.run(deploy)
    try:
        yield url
    finally:
        with progress(f"Stopping {target}"):
            trio.run(manager.stop, deploy_id)


class Access(NamedTuple):
    """What a command shows a server, to be let in."""

    token: str | None = None
    cert: Path | None = None
    key: Path | None = None

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return a context that presents the certificate, None without one. Raises ConfigurationError."""
        if self.cert is None and self.key is None:
            return None
        if self.cert is None:
            raise ConfigurationError("--key was given without --cert: the key belongs to a certificate")
        from ..client.http_api import system_context

        context = system_context()
        try:
            context.load_cert_chain(self.cert, self.key)
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror or error
            raise ConfigurationError(
                f"the certificate {os.fspath(self.cert)!r} cannot be presented: {reason}; --cert and --key must be "
                "PEM, and belong to each other"
            ) from None
        return context


def new_client(url: str, access: Access, *, patient: bool = False) -> AgentClient:
    """Make a client. With `patient` it reconnects for a minute; otherwise it fails at the first attempt.

    Raises:
        ConfigurationError: it is not a URL, or the certificate cannot be used.
    """
    from ..client import AgentClient, Retries

    if not is_url(url):
        raise ConfigurationError(f"{url!r} is neither a URL (http://...) nor the id of a deployment")
    retries = Retries() if patient else Retries(attempts=1)
    return AgentClient(url, token=access.token, retries=retries, ssl_context=access.ssl_context())
