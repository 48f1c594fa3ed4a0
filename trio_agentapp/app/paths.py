"""Where an app is reached: paths of routes, and hosts."""

from __future__ import annotations

import ipaddress

from ..web.routing import native_path

__all__ = ["is_loopback", "native_path"]


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
