"""The wheel of an app, with a starter: what ModelStudio installs, and what the archives of the others are made of.

Paths and keys of `config.yml` are those that ModelStudio looks for. The wheel holds this package too, and requires
the exact versions of the build context.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigurationError, DeployError
from ..packaging import CODE, BuildContext, build_context
from ..records import KEPT, Records
from ..wheels import own_files, own_metadata, write_wheel

if TYPE_CHECKING:
    from ...app import AgentApp

__all__ = ["STARTER", "builds_folder", "bundle_of", "checked_name", "default_name"]

STARTER = "deploy_starter/main.py"
APP = "deploy_starter/user_bundle/app"

NAME = re.compile(r"[A-Za-z_][\w-]{0,62}", re.ASCII)
"""Names that all three services take."""

CACHE_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n"
"""Of the Cache Directory Tagging Specification. Packages leave such folders out, so none has others inside."""

MAIN = '''\
"""Starts the app. Made by trio-agentapp."""

import json
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
root = os.path.dirname(here)
with open(os.path.join(here, "start.json"), encoding="utf-8") as file:
    start = json.load(file)
environment = {**start["environment"], **os.environ, "HOST": "0.0.0.0", "PORT": str(start["port"])}
environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
environment.setdefault("AGENTAPP_LOG_FORMAT", "json")
os.chdir(os.path.join(here, "user_bundle", "app"))
# The process stays the same, so that the app itself gets the signals of the platform.
os.execve(sys.executable, [sys.executable, "-m", "trio_agentapp", "run", start["entry"]], environment)
'''


def bundle_of(
    source: AgentApp | str,
    *,
    name: str,
    port: int,
    requirements: Sequence[str] | None = None,
    allowed: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    telemetry: bool = True,
) -> tuple[str, bytes]:
    """Return file name and content of the wheel of an app. The same arguments give the same bytes.

    `environment` becomes part of the wheel; variables of the platform take precedence.

    Raises:
        ConfigurationError, DeployError: as `build_context` does.
    """
    context = build_context(source, requirements=requirements, port=port, allowed=allowed)
    files = _files(context, name, dict(environment or {}), telemetry)
    digest = hashlib.sha256()
    for path, content in sorted(files.items()):
        digest.update(f"{path}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    # A version has to be numbers, and another one for other content.
    version = f"0.1.{int(digest.hexdigest()[:12], 16)}"
    package = f"agentapp_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}"
    files[f"{package}-{version}.dist-info/METADATA"] = "".join(
        [
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\nRequires-Python: >=3.11\n",
            *(f"Requires-Dist: {line}\n" for line in context.requirements.lines),
        ]
    ).encode()
    return write_wheel(package, version, files)


def _files(context: BuildContext, name: str, environment: dict[str, str], telemetry: bool) -> dict[str, bytes]:
    start = {"entry": context.entry, "port": context.port, "environment": environment}
    config = {
        "APP_NAME": name,
        "HOST": "0.0.0.0",  # noqa: S104 - in the container of the platform
        "PORT": context.port,
        "FC_RUN_CMD": f"python3 /code/python/{STARTER}",
        "TELEMETRY_ENABLE": telemetry,
        "CMD": f"python -m trio_agentapp run {context.entry}",
        "APP_SUBDIR_NAME": "app",
    }
    # Where `importlib.metadata` finds the version of this package: a wheel has one `.dist-info`, its own.
    egg_info = f"trio_agentapp-{metadata.version('trio-agentapp')}.egg-info/PKG-INFO"
    return {
        "deploy_starter/__init__.py": b"",
        STARTER: MAIN.encode(),
        "deploy_starter/start.json": json.dumps(start, sort_keys=True).encode(),
        # JSON is YAML.
        "deploy_starter/config.yml": "".join(
            f"{key}: {json.dumps(value)}\n" for key, value in config.items()
        ).encode(),
        egg_info: own_metadata("METADATA"),
        **own_files(),
        **{
            f"{APP}/{path.removeprefix(f'{CODE}/')}": content
            for path, content in context.files.items()
            if path.startswith(f"{CODE}/")
        },
    }


def default_name(source: AgentApp | str) -> str:
    """The app's name, or that of its file or folder, in characters that all services take."""
    if isinstance(source, str):
        path = Path(source.partition(":")[0]).absolute()
        generic = path.stem in ("app", "agent", "main")
        text = path.name if path.is_dir() else path.parent.name if generic else path.stem.rpartition(".")[2]
    else:
        text = source.app_name
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return (name if name[:1].isalpha() else f"agent-{name}".rstrip("-"))[:63].rstrip("-")


def checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"the name {name!r} cannot be used; take at most 63 letters, digits, - and _, a letter first"
        )
    return name


def builds_folder(build_root: str | os.PathLike[str] | None) -> Path:
    """The folder for packages: `build_root`, else `builds` beside the records of deployments.

    In the latter, files that are older than a week are removed.

    Raises:
        DeployError: it cannot be made.
    """
    folder = Records().folder.parent / "builds" if build_root is None else Path(build_root).absolute()
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "CACHEDIR.TAG").write_text(CACHE_TAG)
        if build_root is None:
            for path in folder.glob("agentapp_*"):
                with suppress(FileNotFoundError):  # another process removes them too
                    if path.stat().st_mtime < time.time() - KEPT:
                        path.unlink()
    except OSError as error:
        raise DeployError(f"{folder} cannot be used for packages: {error.strerror}; name a build_root") from error
    return folder
