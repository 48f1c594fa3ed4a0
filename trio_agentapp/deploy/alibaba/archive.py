"""The code archive of AgentRun and Function Compute: an app's wheel, installed with all that it needs.

pip installs for the platform of the service, not for this machine, so it needs no container. Packages must have
wheels.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import trio

from ...errors import DeployError
from ..installer import run_installer
from ..whole_file import whole_file
from .bundle import STARTER

__all__ = ["PYTHON", "archive_of"]

PYTHON = "3.12"
"""The version of the service's Python."""

# Both run Debian 11, with glibc 2.31, on x86-64.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(31, 4, -1)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]

INSTALL_TIMEOUT = 900.0
"""Seconds for downloads and installation."""

LARGEST = 500 * 1024 * 1024
"""Bytes of an archive that the services take from a bucket."""


async def archive_of(
    wheel: Path, folder: Path, *, index_url: str | None = None, report: Callable[[str], object] = lambda _: None
) -> Path:
    """Install the wheel for the service, and write the archive into `folder`. One that is there is used again.

    Raises:
        DeployError: a package has no wheel for the service, or cannot be downloaded; the archive is too large; the
            wheel has no starter, so `trio-agentapp` did not make it.
    """
    digest = hashlib.sha256(f"{PYTHON} {await trio.to_thread.run_sync(_digest, wheel)}".encode()).hexdigest()[:12]
    target = folder / f"{wheel.name.partition('-')[0]}-{digest}.zip"
    if not target.exists():
        with tempfile.TemporaryDirectory(prefix="agentapp-archive-") as name:
            report(f"Installing the app and its packages for Python {PYTHON}")
            await _install(wheel, Path(name), index_url)
            report("Packing them")
            await trio.to_thread.run_sync(_pack, Path(name), target)
    if (size := target.stat().st_size) > LARGEST:
        raise DeployError(
            f"the archive has {size // 2**20} MiB, and the service takes {LARGEST // 2**20}; name fewer "
            "packages with --requirement"
        )
    return target


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _install(wheel: Path, folder: Path, index_url: str | None) -> None:
    if find_spec("pip") is None:
        raise DeployError(f"pip is needed, and {sys.executable} has none: {sys.executable} -m ensurepip")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-compile", "--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON]
    command += [text for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none") for text in ("--abi", abi)]
    command += [text for platform in PLATFORMS for text in ("--platform", platform)]
    command += [] if index_url is None else ["--index-url", index_url]
    command += ["--target", str(folder), str(wheel)]
    await run_installer(
        command,
        timeout=INSTALL_TIMEOUT,
        late=f"packages were not installed in {INSTALL_TIMEOUT:g} s; check the package index",
        fault=f"the packages cannot be installed for Python {PYTHON} on Linux x86-64, where all need wheels",
    )


def _pack(folder: Path, target: Path) -> None:
    if not (folder / STARTER).exists():
        raise DeployError(f"the wheel has no {STARTER}; make it with --skip-upload, or deploy the app itself")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and _wanted(path, folder))
    with whole_file(target) as file, zipfile.ZipFile(file, "w") as archive:
        for path in paths:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # dated 1980-01-01
            entry.external_attr = (0o755 if os.access(path, os.X_OK) else 0o644) << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
            trio.from_thread.check_cancelled()


def _wanted(path: Path, folder: Path) -> bool:
    """Leave out what differs from one installation to the next, and scripts that name this machine's Python."""
    inside = path.relative_to(folder)
    return path.suffix != ".pyc" and path.name != "direct_url.json" and inside.parts[0] != "bin"
