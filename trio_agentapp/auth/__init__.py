"""Ready-made hooks for `AgentApp(authenticate=...)`.

bearer        BearerTokens: keys of a file, by `Authorization: Bearer` or by a header of their own
keys          the keys: how they are made, hashed and written into the file
json_web_token  JWT: signed tokens of an identity provider; needs the extra `jwt`
key_set       the public keys of the provider, from a file or a URL
client_certificates  ClientCertificates: the user that a certificate names, by mutual TLS
proxy         TrustedProxyHeader: the user that a reverse proxy has authenticated
watched_file  a file that is read again when it has changed
credentials   what they have in common: the bearer token of a request, and checked users and scopes

Names are looked up when they are asked for, so that each hook loads only the libraries that it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names

if TYPE_CHECKING:
    from .bearer import BearerTokens
    from .client_certificates import ClientCertificates
    from .json_web_token import JWT
    from .proxy import TrustedProxyHeader

__all__ = ["JWT", "BearerTokens", "ClientCertificates", "TrustedProxyHeader"]

_HOMES = {
    "BearerTokens": "bearer",
    "ClientCertificates": "client_certificates",
    "JWT": "json_web_token",
    "TrustedProxyHeader": "proxy",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
