"""Arguments and options that several commands have."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigurationError
from .exits import ExitCode
from .target import deployments

__all__ = [
    "Allow",
    "App",
    "AsJson",
    "Builder",
    "Cache",
    "CaCerts",
    "BaseImage",
    "CertFile",
    "CertReqs",
    "ClientCert",
    "ClientKey",
    "Entrypoint",
    "Env",
    "EnvFile",
    "Format",
    "Host",
    "IndexUrl",
    "KeyFile",
    "OutputFormat",
    "Platform",
    "Port",
    "Query",
    "Requirement",
    "Session",
    "Target",
    "Token",
    "User",
    "Workers",
    "chosen",
    "variant",
]

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
CaCerts = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="For TLS: the CA whose certificates clients present, as PEM."),
]
CertReqs = Annotated[
    str | None, typer.Option(help="Whether they must: required or optional.  [default: required with --ca-certs]")
]
Target = Annotated[
    str,
    typer.Argument(
        help="A URL, the id of a deployment, or an app (agent.py, a folder) to serve for this command.",
        autocompletion=deployments,
    ),
]
Session = Annotated[
    str | None,
    typer.Option("--session", "--session-id", help="The session.  [default: a new one]"),
]
User = Annotated[
    str | None, typer.Option("--user", "--user-id", help="The owner of the session.  [default: the session's id]")
]
Query = Annotated[str | None, typer.Option("--query", "-q", help="Send this message, print the answer and exit.")]
Token = Annotated[
    str | None, typer.Option(envvar="AGENTAPP_TOKEN", help="Sent as Authorization: Bearer.", show_envvar=True)
]


def _presented(name: str, variable: str, help: str) -> Any:
    return typer.Option(name, exists=True, dir_okay=False, envvar=variable, help=help, show_envvar=True)


ClientCert = Annotated[
    Path | None, _presented("--cert", "AGENTAPP_CLIENT_CERT", "The certificate to present over TLS, as PEM.")
]
ClientKey = Annotated[
    Path | None, _presented("--key", "AGENTAPP_CLIENT_KEY", "Its key.  [default: in the same file]")
]
Env = Annotated[
    list[str] | None, typer.Option("--env", "-E", help="NAME=VALUE for its environment; may be repeated.")
]
EnvFile = Annotated[Path | None, typer.Option(help="More of its environment, as NAME=VALUE lines; --env wins.")]
Requirement = Annotated[
    list[str] | None,
    typer.Option(
        "--requirement",
        "--requirements",
        help="Package, as name==1.2, or a file of them; may be repeated.  [default: found in files or imports]",
    ),
]
BaseImage = Annotated[
    str | None, typer.Option(help="Image with Python and pip.  [default: the slim one of this Python]")
]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", help="File that is not searched for secrets; may be repeated."),
]
IndexUrl = Annotated[
    str | None, typer.Option("--index-url", "--pypi-mirror", help="Package index.  [default: that of pip]")
]
Builder = Annotated[
    str | None,
    typer.Option("--builder", help="docker, podman or buildah.  [default: the first that is installed]"),
]
Platform = Annotated[str | None, typer.Option(help="Of the image, as linux/arm64.  [default: this machine's]")]
Cache = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Keep an image of the same files, and layers that fit.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts: print only JSON on stdout.")]


class Format(StrEnum):
    TEXT = "text"
    TABLE = "table"
    JSON = "json"


OutputFormat = Annotated[Format, typer.Option("--output-format", "-f", help="json is the same as --json.")]


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


def variant(
    declared: Callable[..., None], run: Callable[..., ExitCode], text: str, without: Sequence[str]
) -> Callable[..., ExitCode]:
    """Return a command that calls `run` with the options of `declared` but those of `without`; its help is `text`.

    So commands that have most of their options in common declare each option once.
    """

    def command(**options: Any) -> ExitCode:
        return run(**options)

    left = [
        each for each in inspect.signature(declared, eval_str=True).parameters.values() if each.name not in without
    ]
    command.__signature__ = inspect.Signature(left)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in left}
    command.__doc__ = text
    return command
