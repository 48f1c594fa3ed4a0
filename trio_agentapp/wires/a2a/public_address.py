"""Addresses of the internet, as opposed to those that only this network or this machine can reach."""

from __future__ import annotations

import ipaddress

__all__ = ["is_public"]

GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the internet. IPv6 forms of IPv4 addresses are looked through.

    Of IPv6 only 2000::/3 is allocated for the internet (IANA, "IPv6 Global Unicast Address Assignments"). Python's
    `is_global` is true for others, too: ::127.0.0.1, the site-local fec0::/10, the translations 64:ff9b:1::/48.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is not None and not is_public(inner):
            return False
        if address in NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast
