"""Names and addresses of hosts, and ports."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["Address", "Network", "is_loopback", "port_fault", "read_address", "read_networks"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def port_fault(port: object) -> str | None:
    """Return what is wrong with a port; None if a server can listen on it. 0 stands for any free port."""
    if type(port) is int and 0 <= port <= 65535:
        return None
    return f"port must be a number from 0 to 65535, not {port!r}"


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine can connect to it: a loopback address, or a Unix socket."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_address(text: str | None) -> Address | None:
    """Return the address in a text; None if it is not one. `::ffff:10.0.0.7` becomes 10.0.0.7."""
    try:
        address = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    # A socket for IPv4 and IPv6 reports IPv4 clients by such addresses.
    return getattr(address, "ipv4_mapped", None) or address


def read_networks(texts: Iterable[str]) -> list[Network]:
    """Return the networks that are named by addresses such as `10.0.0.7` and networks such as `10.1.0.0/16`.

    Raises ValueError: a text cannot be read, or its network has every address.
    """
    networks: list[Network] = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is no address and no network: {error}") from error
        if network.prefixlen == 0:
            raise ValueError(f"{text!r} trusts every client; name the addresses of the proxy")
        networks.append(network)
    return networks
