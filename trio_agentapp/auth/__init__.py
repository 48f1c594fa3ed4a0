"""Ready-made hooks for `AgentApp(authenticate=...)`.

bearer        BearerTokens: keys of a file, by `Authorization: Bearer` or by a header of their own
keys          the keys: how they are made, hashed and written into the file
json_web_token  JWT: signed tokens of an identity provider; needs the extra `jwt`
key_set       the public keys of the provider, from a file or a URL
proxy         TrustedProxyHeader: the user that a reverse proxy has authenticated
watched_file  a file that is read again when it has changed
credentials   what the three have in common: the bearer token of a request, and checked users and scopes

Names are looked up when they are asked for, so that each hook loads only the libraries that it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bearer import BearerTokens
    from .json_web_token import JWT
    from .proxy import TrustedProxyHeader

__all__ = ["JWT", "BearerTokens", "TrustedProxyHeader"]

_HOMES = {"BearerTokens": "bearer", "JWT": "json_web_token", "TrustedProxyHeader": "proxy"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
