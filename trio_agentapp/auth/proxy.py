"""`TrustedProxyHeader`: the user that a reverse proxy has authenticated."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from quart import Request, Websocket

from ..errors import ConfigurationError, InvalidCredentials
from ..web import Principal
from .credentials import only_header, user_of, words_of

__all__ = ["TrustedProxyHeader"]


class TrustedProxyHeader:
    """A hook for `authenticate`: the proxy has authenticated the client, by mutual TLS for example.

    It names the user in `header`, and the scopes in `scopes_header`, with spaces between them. It must remove both
    headers from what clients send. A request from an address that is not one of `trusted` is refused.
    """

    def __init__(self, header: str, *, trusted: Iterable[str], scopes_header: str | None = None) -> None:
        """`trusted`: addresses and networks, such as `10.0.0.7` or `10.1.0.0/16`.

        Raises ConfigurationError: there is none, or one cannot be read, or it is every address.
        """
        self._header = header
        self._scopes_header = scopes_header
        self._trusted = [_network(each) for each in ([trusted] if isinstance(trusted, str) else trusted)]
        if not self._trusted:
            raise ConfigurationError("TrustedProxyHeader: trusted must name the address of the proxy")

    async def __call__(self, request: Request | Websocket) -> Principal | None:
        """Return the principal, None without the header. Raises InvalidCredentials."""
        user = only_header(request, self._header)
        if user is None:
            return None
        if not self._trusts(request.remote_addr):
            raise InvalidCredentials
        scopes = None if self._scopes_header is None else only_header(request, self._scopes_header)
        return Principal(user_of(user), scopes=frozenset(words_of(scopes)))

    def _trusts(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        # A socket for both kinds of addresses shows those of IPv4 as ::ffff:10.0.0.7.
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._trusted)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigurationError(f"TrustedProxyHeader: trusted has {text!r}: {error}") from error
    if network.prefixlen == 0:
        raise ConfigurationError(
            f"TrustedProxyHeader: {text!r} trusts every client; name the addresses of the proxy"
        )
    return network
