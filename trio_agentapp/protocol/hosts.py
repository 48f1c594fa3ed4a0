"""Names of hosts, and ports."""

from __future__ import annotations

import ipaddress

__all__ = ["is_loopback", "port_fault"]


def port_fault(port: object) -> str | None:
    """What is wrong with a port; None if a server may be told to listen on it. 0 stands for a free one."""
    if type(port) is int and 0 <= port <= 65535:
        return None
    return f"port must be a number from 0 to 65535, not {port!r}"


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can connect: a loopback address, or a Unix socket."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
