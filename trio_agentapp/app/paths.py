"""Paths of routes, as users of FastAPI write them and as Quart does."""

from __future__ import annotations

import re

__all__ = ["native_path"]

BRACED = re.compile(r"\{(\w+)(?::(\w+))?\}")


def native_path(path: str) -> str:
    """`/a/{b}/{c:path}` as Quart writes it: `/a/<b>/<path:c>`."""
    return BRACED.sub(lambda found: f"<{found[2]}:{found[1]}>" if found[2] else f"<{found[1]}>", path)
