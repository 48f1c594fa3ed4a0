"""Makes the build context of an image: code, exact requirements, the wheel of this package, and a Dockerfile."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ..errors import ConfigurationError, DeployError
from ..protocol.hosts import port_fault
from .requirements import Requirements, find_requirements
from .source_tree import SourceTree, read_tree
from .wheels import own_wheel

if TYPE_CHECKING:
    from ..app import AgentApp

__all__ = ["CODE", "BuildContext", "build_context"]

CODE = "app"
"""The folder of the context that has the user's code, and the current folder of the app in the image."""

USER = 10001
"""The user id in the image. It is a number, so that Kubernetes can check that it is not root."""

IMAGE = re.compile(r"[a-z0-9][\w.\-/:]*(@sha256:[0-9a-f]{64})?", re.IGNORECASE)

# What changes most often comes last, so that the layers before it stay in the cache of the builder.
DOCKERFILE = """\
# Made by trio-agentapp build; the same source gives the same file.
FROM {base_image}

RUN useradd --create-home --uid {user} agent
WORKDIR /srv

# An index inside a company: --build-arg PIP_INDEX_URL=https://host/simple. Its value can be read in the image's
# history, so it must have no password.
ARG PIP_INDEX_URL
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt
COPY wheels/ wheels/
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps wheels/*.whl

COPY {code}/ {code}/
WORKDIR /srv/{code}
USER {user}:{user}
ENV HOST=0.0.0.0 PORT={port} AGENTAPP_LOG_FORMAT=json PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
EXPOSE {port}
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \\
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/liveness', timeout=2)"]

# Without a shell: Python is PID 1, gets SIGTERM and drains.
CMD ["trio-agentapp", "run", "{entry}"]
"""


@attrs.frozen(kw_only=True)
class BuildContext:
    """All files of a build context, in memory: at most some hundred MiB."""

    files: dict[str, bytes]
    executables: frozenset[str]
    entry: str
    """What `trio-agentapp run` gets, in the folder `app`."""
    port: int
    requirements: Requirements
    left_out: dict[str, str]

    @property
    def digest(self) -> str:
        """The SHA-256 of paths, modes and contents, in hex digits."""
        total = hashlib.sha256()
        for name in sorted(self.files):
            content = hashlib.sha256(self.files[name]).hexdigest()
            total.update(f"{name}\0{int(name in self.executables)}\0{content}\n".encode())
        return total.hexdigest()

    @property
    def tag(self) -> str:
        """A tag for the image: the first 12 digits of the digest."""
        return self.digest[:12]

    def archive(self) -> bytes:
        """The context as an uncompressed tar archive, as `docker build - < FILE` takes it."""
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name in sorted(self.files):
                entry = tarfile.TarInfo(name)
                entry.size = len(self.files[name])
                entry.mode = self._mode(name)
                archive.addfile(entry, io.BytesIO(self.files[name]))
        return target.getvalue()

    def write(self, target: str | os.PathLike[str]) -> None:
        """Write the context to a folder, or to a file that ends in `.tar`. What a former context left is replaced.

        Raises:
            DeployError: the folder has other files, or cannot be written.
        """
        path = Path(target)
        try:
            if path.suffix == ".tar":
                path.write_bytes(self.archive())
                return
            if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not _is_context(path))):
                raise DeployError(f"{path} has files that are no build context; name a new or empty folder")
            for old in (path / CODE, path / "wheels"):
                shutil.rmtree(old, ignore_errors=True)
            for name, content in self.files.items():
                file = path / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                file.chmod(self._mode(name))
        except OSError as error:
            raise DeployError(f"{error.filename or path} cannot be written: {error.strerror}") from error

    def _mode(self, name: str) -> int:
        return 0o755 if name in self.executables else 0o644


def build_context(
    source: AgentApp | str,
    *,
    requirements: Sequence[str] | None = None,
    base_image: str | None = None,
    port: int = 8090,
    allowed: Sequence[str] = (),
) -> BuildContext:
    """Make the build context of an app. Neither the app nor its modules are imported.

    Args:
        source: an app that is a global name of a module; or `agent.py`, `agent.py:app`, a folder, `module:app`.
        requirements: in place of those that are found, such as `["httpx==0.28.1"]`.
        base_image: an image with Python and pip; by default the slim one of this version of Python.
        port: on which the app listens in the container.
        allowed: files of the folder that are not searched for secrets.

    Raises:
        ConfigurationError: there is no such app, or an argument cannot be used.
        DeployError: a file looks like a secret; a file, module or version is missing. The message names it.
    """
    from ..app.entrypoint import entrypoint_of

    if not 0 < port <= 65535:
        raise ConfigurationError(port_fault(port) or "port must be a number from 1 to 65535, not 0")
    base_image = base_image or f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    if not IMAGE.fullmatch(base_image):
        raise ConfigurationError(f"base_image {base_image!r} is not the name of an image, such as python:3.12-slim")
    tree = read_tree(source if isinstance(source, str) else entrypoint_of(source), allowed=allowed)
    if not re.fullmatch(r"[^\"\\\0-\x1f]+", tree.entry):
        raise DeployError(f"{tree.entry!r} has characters that a Dockerfile cannot hold; rename the file")
    found = find_requirements(tree, requirements)
    files = _files(tree, found, base_image, port)
    return BuildContext(
        files=files,
        executables=frozenset(f"{CODE}/{name}" for name in tree.executables),
        entry=tree.entry,
        port=port,
        requirements=found,
        left_out=tree.left_out,
    )


def _files(tree: SourceTree, found: Requirements, base_image: str, port: int) -> dict[str, bytes]:
    wheel, content = own_wheel()
    dockerfile = DOCKERFILE.format(base_image=base_image, user=USER, code=CODE, port=port, entry=tree.entry)
    return {
        "Dockerfile": dockerfile.encode(),
        "requirements.txt": "".join(f"{line}\n" for line in found.lines).encode(),
        f"wheels/{wheel}": content,
        **{f"{CODE}/{name}": content for name, content in tree.files.items()},
    }


def _is_context(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    return names <= {CODE, "wheels", "Dockerfile", "requirements.txt"} and "Dockerfile" in names
