"""The names under which limits count those who send requests."""

from __future__ import annotations

from typing import Any

__all__ = ["address_name", "user_name"]


def user_name(user_id: str) -> str:
    """The name of an authenticated user."""
    return f"user {user_id}"


def address_name(scope: Any) -> str | None:
    """The name of the client's address; None if it has none, as on a Unix socket.

    An IPv6 client chooses among 2^64 addresses, so its network counts (RFC 4291, section 2.5.4).
    """
    client = scope.get("client")
    host = client[0] if client else ""
    if not isinstance(host, str) or not host:
        return None
    return f"address {_network(host)}" if ":" in host else f"address {host}"


def _network(address: str) -> str:
    # Imported only if needed, and called for IPv6 only: parsing takes longer than the rest of the limit.
    from ipaddress import AddressValueError, IPv6Address

    try:
        parsed = IPv6Address(address)
    except AddressValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
