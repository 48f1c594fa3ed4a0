"""Packages of the npm registry for tests, each in a folder of the environment that runs the tests."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

__all__ = ["node_package"]

FOLDER = Path(sys.prefix) / "node"


def node_package(name: str, version: str) -> Path:
    """Return the folder of a package. It is installed the first time; without npm the test is skipped."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    place = FOLDER / f"{name}-{version}"
    if not place.exists():
        FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            made = Path(folder) / "made"
            made.mkdir()
            command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(made)]
            done = subprocess.run(
                [*command, f"{name}@{version}"], capture_output=True, text=True, timeout=300, check=False
            )
            if done.returncode:
                pytest.skip(f"npm could not install {name}@{version}: {done.stderr.strip()[-300:]}")
            # Another process may have been faster: then the folder is not empty.
            with contextlib.suppress(OSError):
                made.rename(place)
    return place / "node_modules" / name
