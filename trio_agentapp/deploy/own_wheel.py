"""The wheel of this package, made from its installed files: the same files give the same bytes."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from .wheels import write_wheel

__all__ = ["own_files", "own_metadata", "own_wheel"]

NAME = "trio_agentapp"


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
