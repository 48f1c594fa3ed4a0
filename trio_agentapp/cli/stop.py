"""`stop`: stops a run, or a deployment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigurationError
from .deployers import is_remote, manager_of
from .exits import ExitCode, say
from .options import AsJson, ClientCert, ClientKey, Token, User
from .progress import progress
from .target import Access, deployments, is_url, new_client, url_of
from .terminal import write_json

if TYPE_CHECKING:
    from ..protocol.deployment import DeploymentStatus

__all__ = ["stop"]


def stop(
    target: Annotated[str, typer.Argument(help="A URL, or the id of a deployment.", autocompletion=deployments)],
    session: Annotated[
        str | None, typer.Option("--session", "--session-id", help="Stop the running run of this session.")
    ] = None,
    user: User = None,
    run: Annotated[str | None, typer.Option(help="Stop the run of this id.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the run and its cleanup have ended.")] = True,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="For a deployment: seconds until it is killed.")
    ] = None,
    token: Token = None,
    cert: ClientCert = None,
    key: ClientKey = None,
    as_json: AsJson = False,
    _: Annotated[bool, typer.Option("--yes", "-y", help="Accepted for old scripts: nothing is asked.")] = False,
) -> ExitCode:
    """Stop a run of TARGET (--session or --run), or without these the deployment TARGET itself.

    It is no error if the run does not exist or has ended.
    """
    if session is None and run is None:
        if is_url(target):
            raise ConfigurationError("name what to stop: --session SESSION, --run RUN, or the id of a deployment")
        return _stop_deployment(target, timeout, as_json)

    import trio

    from .turn import receipt_line

    async def ask() -> Any:
        async with new_client(url_of(target) or target, Access(token, cert, key)) as client:
            return await client.stop(session, user, run_id=run, wait=wait)

    with progress("Stopping"):
        receipt = trio.run(ask)
    if as_json:
        write_json(receipt)
    else:
        say(receipt_line(receipt))
        if receipt.run_id is None and user is None:
            say("If the session belongs to a user, name the user: --user USER.")
    return ExitCode.OK


def _stopping(target: str, timeout: float | None) -> Callable[[], Awaitable[DeploymentStatus]]:
    if not is_remote(target):
        from ..deploy import LocalDeployManager

        return partial(LocalDeployManager().stop, target, timeout=timeout)
    if timeout is not None:
        raise ConfigurationError("a deployment elsewhere ends in its own grace period; leave --timeout out")
    manager, deploy_id = manager_of(target)
    return partial(manager.stop, deploy_id)


def _stop_deployment(deploy_id: str, timeout: float | None, as_json: bool) -> ExitCode:
    import trio

    from .status import show

    with progress(f"Stopping {deploy_id}: live runs may finish first"):
        ended = trio.run(_stopping(deploy_id, timeout))
    show(ended, as_json=as_json)
    return ExitCode.OK
