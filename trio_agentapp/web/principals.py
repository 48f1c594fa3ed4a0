"""The names under which limits count the requests of a user or an address."""

from __future__ import annotations

from typing import Any

__all__ = ["address_name", "user_name"]


def user_name(user_id: str) -> str:
    """Return the name of an authenticated user."""
    return f"user {user_id}"


def address_name(scope: Any) -> str | None:
    """Return the name of the client's address; None if it has none, as on a Unix socket.

    An IPv6 client has 2^64 addresses to choose from, so its /64 network is counted (RFC 4291, section 2.5.4).
    """
    client = scope.get("client")
    host = client[0] if client else ""
    if not isinstance(host, str) or not host:
        return None
    return f"address {_network(host)}" if ":" in host else f"address {host}"


def _network(address: str) -> str:
    # Import it only for IPv6, since parsing an address takes longer than the rest of the check.
    from ipaddress import AddressValueError, IPv6Address

    try:
        parsed = IPv6Address(address)
    except AddressValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
