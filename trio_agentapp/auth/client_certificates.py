"""`ClientCertificates`: authenticates clients by the certificate of their connection (mutual TLS)."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from quart import Request, Websocket

from ..errors import ConfigurationError, CredentialsExpired, InvalidCredentials, Unauthorized
from ..protocol.ids import identifier_fault
from ..server.extensions import CLIENT_CERTIFICATE, PEER, extension
from ..web import Principal

__all__ = ["BEHIND_PROXY", "NOT_ASKED", "ClientCertificates"]

logger = logging.getLogger("trio_agentapp.auth")

FIELDS = ("CN", "DNS", "email", "URI")

NOT_ASKED = (
    "ClientCertificates: this server does not ask clients for certificates; serve with TLS and the file of their "
    "CA: app.run(certfile=..., keyfile=..., ca_certs=...), or --ca-certs, or AGENTAPP_CA_CERTS"
)
BEHIND_PROXY = (
    "ClientCertificates: behind a proxy (trusted_proxies) the certificate of a connection is the proxy's, and "
    "every client would be the same user; let the proxy verify certificates, and use TrustedProxyHeader"
)


class ClientCertificates:
    """A hook for `authenticate`: the certificate that the client has presented on this connection.

    The server verifies it during the handshake, if `app.run(ca_certs=...)` names the CA. This hook reads the user
    from it. `user_field` is the field with the name of the user: "CN", the common name of the subject; or "DNS",
    "email" or "URI", an alternative name of that kind, such as `spiffe://example.com/billing`. `scopes`: the names
    that are accepted, and the scopes of each. Without it, every certificate of the CA is accepted, without scopes.

    The principal's claims are the certificate, as `ssl.SSLSocket.getpeercert` returns it.
    """

    def __init__(
        self,
        user_field: Literal["CN", "DNS", "email", "URI"] = "CN",
        *,
        scopes: Mapping[str, str | Iterable[str]] | None = None,
    ) -> None:
        """`scopes`: for each name a list, or one text with spaces in between. Raises ConfigurationError."""
        if user_field not in FIELDS:
            raise ConfigurationError(
                f"ClientCertificates: user_field must be one of {', '.join(FIELDS)}, not {user_field!r}"
            )
        for name in scopes or ():
            if (fault := identifier_fault(name)) is not None:
                raise ConfigurationError(f"ClientCertificates: scopes: the name {name!r} {fault}")
        self._field = user_field
        self._scopes: dict[str, frozenset[str]] | None = None
        if scopes is not None:
            self._scopes = {
                name: frozenset(each.split() if isinstance(each, str) else each) for name, each in scopes.items()
            }

    async def __call__(self, request: Request | Websocket) -> Principal | None:
        """Return the principal, None if the client has presented no certificate.

        Raises:
            InvalidCredentials: the certificate names no accepted user, or more than one.
            CredentialsExpired: it has expired since the handshake.
            Unauthorized: the server does not ask for certificates, or the request came through a proxy.
        """
        certificate: dict[str, Any] | None = extension(request.scope, CLIENT_CERTIFICATE)
        if certificate is None or extension(request.scope, PEER) is not None:
            logger.error("%s", NOT_ASKED if certificate is None else BEHIND_PROXY)
            raise Unauthorized("This server cannot see client certificates. Its log says what to change.")
        if not certificate:
            return None
        if ssl.cert_time_to_seconds(certificate["notAfter"]) < time.time():
            raise CredentialsExpired
        names = self._names(certificate)
        fault: str | None = f"it has {len(names)} names ({self._field}) that may come in, and must have one"
        if len(names) == 1:
            [user] = names
            if (fault := identifier_fault(user)) is None:
                return Principal(user, certificate, frozenset() if self._scopes is None else self._scopes[user])
            fault = f"its name ({self._field}) {fault}"
        serial = certificate["serialNumber"]
        logger.info("the client certificate with serial number %s was refused: %s", serial, fault)
        raise InvalidCredentials

    def _names(self, certificate: Mapping[str, Any]) -> set[str]:
        """Return the names in the field of the certificate; with `scopes`, only those that it lists."""
        if self._field == "CN":
            pairs = [pair for part in certificate["subject"] for pair in part]
        else:
            pairs = certificate.get("subjectAltName", ())
        key = "commonName" if self._field == "CN" else self._field
        names = {value for kind, value in pairs if kind == key}
        return names if self._scopes is None else names & self._scopes.keys()
