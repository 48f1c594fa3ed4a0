"""Writes wheels, in the format of the Python packaging specification "Binary distribution format".

The same files give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping

__all__ = ["write_wheel", "write_zip"]

WHEEL = b"Wheel-Version: 1.0\nGenerator: trio-agentapp\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(name: str, version: str, files: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Return file name and content of a pure Python wheel. `files` has all but `WHEEL` and `RECORD`."""
    info = f"{name}-{version}.dist-info"
    complete = {**files, f"{info}/WHEEL": WHEEL}
    rows = [f"{path},sha256={_digest(content)},{len(content)}\n" for path, content in sorted(complete.items())]
    complete[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        write_zip(archive, complete)
    return f"{name}-{version}-py3-none-any.whl", target.getvalue()


def write_zip(archive: zipfile.ZipFile, files: Mapping[str, bytes]) -> None:
    for name, content in sorted(files.items()):
        # ZipInfo's default date is 1980-01-01. Nothing is compressed, because versions of zlib differ.
        entry = zipfile.ZipInfo(name)
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, content)


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
