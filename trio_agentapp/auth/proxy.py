"""`TrustedProxyHeader`: the user that a reverse proxy has authenticated."""

from __future__ import annotations

from collections.abc import Iterable

from quart import Request, Websocket

from ..errors import ConfigurationError, InvalidCredentials
from ..protocol.hosts import read_address, read_networks
from ..server.extensions import peer_of
from ..web import Principal
from .credentials import only_header, user_of, words_of

__all__ = ["TrustedProxyHeader"]


class TrustedProxyHeader:
    """A hook for `authenticate`: the proxy has authenticated the client, by mutual TLS for example.

    It names the user in `header`, and the scopes in `scopes_header`, with spaces between them. It must remove both
    headers from what clients send. A request with the header is refused if its connection does not come from one of
    `trusted`. This is the address of the connection itself; the setting `trusted_proxies` does not change it.
    """

    def __init__(self, header: str, *, trusted: Iterable[str], scopes_header: str | None = None) -> None:
        """`trusted`: addresses and networks, such as `10.0.0.7` or `10.1.0.0/16`.

        Raises ConfigurationError: there is none, one cannot be read, or a network has every address.
        """
        self._header = header
        self._scopes_header = scopes_header
        try:
            self._trusted = read_networks([trusted] if isinstance(trusted, str) else trusted)
        except ValueError as error:
            raise ConfigurationError(f"TrustedProxyHeader: trusted: {error}") from error
        if not self._trusted:
            raise ConfigurationError("TrustedProxyHeader: trusted must name the address of the proxy")

    async def __call__(self, request: Request | Websocket) -> Principal | None:
        """Return the principal, None without the header. Raises InvalidCredentials."""
        user = only_header(request, self._header)
        if user is None:
            return None
        peer = read_address(peer_of(request.scope))
        if peer is None or not any(peer in network for network in self._trusted):
            raise InvalidCredentials
        scopes = None if self._scopes_header is None else only_header(request, self._scopes_header)
        return Principal(user_of(user), scopes=frozenset(words_of(scopes)))
