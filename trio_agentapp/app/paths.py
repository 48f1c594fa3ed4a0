"""Where an app is reached: paths of routes, and hosts."""

from __future__ import annotations

import ipaddress
import re

__all__ = ["is_loopback", "native_path"]

BRACED = re.compile(r"\{(\w+)(?::(\w+))?\}")


def native_path(path: str) -> str:
    """`/a/{b}/{c:path}` as Quart writes it: `/a/<b>/<path:c>`."""
    return BRACED.sub(lambda found: f"<{found[2]}:{found[1]}>" if found[2] else f"<{found[1]}>", path)


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
