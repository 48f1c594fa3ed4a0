"""Writes wheels, also that of this package, in the "Binary distribution format" of the Python packaging standards.

The same files give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

__all__ = ["own_files", "own_metadata", "own_wheel", "write_wheel"]

NAME = "trio_agentapp"
WHEEL = b"Wheel-Version: 1.0\nGenerator: trio-agentapp\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(name: str, version: str, files: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Return file name and content of a pure Python wheel. `files` has all but `WHEEL` and `RECORD`."""
    info = f"{name}-{version}.dist-info"
    complete = {**files, f"{info}/WHEEL": WHEEL}
    rows = [f"{path},sha256={_digest(content)},{len(content)}\n" for path, content in sorted(complete.items())]
    complete[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path, content in sorted(complete.items()):
            # ZipInfo's default date is 1980-01-01. Nothing is compressed, because versions of zlib differ.
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return f"{name}-{version}-py3-none-any.whl", target.getvalue()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def own_files() -> dict[str, bytes]:
    """The files of this package, by their paths in `site-packages`."""
    package = Path(__file__).parents[1]
    return {
        f"{NAME}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def own_metadata(name: str) -> bytes:
    """A file such as `METADATA` of the installed distribution."""
    return (metadata.distribution("trio-agentapp").read_text(name) or "").encode()


def own_wheel() -> tuple[str, bytes]:
    """Return the file name and the bytes of the wheel."""
    version = metadata.distribution("trio-agentapp").version
    info = f"{NAME}-{version}.dist-info"
    files = own_files()
    for name in ("METADATA", "entry_points.txt"):
        files[f"{info}/{name}"] = own_metadata(name)
    return write_wheel(NAME, version, files)
