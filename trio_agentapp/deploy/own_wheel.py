"""The wheel of this package, made from its installed files: the same files give the same bytes."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from importlib import metadata
from pathlib import Path

__all__ = ["own_wheel"]

NAME = "trio_agentapp"
WHEEL = "Wheel-Version: 1.0\nGenerator: trio-agentapp\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def own_wheel() -> tuple[str, bytes]:
    """Return file name and content, in the format of the Python packaging specification "Binary distribution"."""
    distribution = metadata.distribution("trio-agentapp")
    info = f"{NAME}-{distribution.version}.dist-info"
    package = Path(__file__).parents[1]
    files = {
        f"{NAME}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    for name in ("METADATA", "entry_points.txt"):
        files[f"{info}/{name}"] = (distribution.read_text(name) or "").encode()
    files[f"{info}/WHEEL"] = WHEEL.encode()
    rows = [f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in sorted(files.items())]
    files[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in sorted(files.items()):
            # ZipInfo's default date is 1980-01-01. Nothing is compressed, because versions of zlib differ.
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return f"{NAME}-{distribution.version}-py3-none-any.whl", target.getvalue()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
