"""`JWT`: authenticates clients by signed tokens of an identity provider (RFC 7519)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from quart import Request, Websocket

from ..errors import ConfigurationError, CredentialsExpired, InvalidCredentials
from ..web import Principal
from .credentials import bearer_token, user_of, words_of

try:
    import jwt
except ModuleNotFoundError as missing:
    raise ConfigurationError(
        "JWT needs a library that is not installed: pip install 'trio-agentapp[jwt]'"
    ) from missing

from .key_set import FileKeys, URLKeys

__all__ = ["JWT"]

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Algorithms with a public key. With a shared secret, every app that checks tokens could also make tokens."""

REQUIRED = ("exp", "iss", "aud")


class JWT:
    """A hook for `authenticate`: `Authorization: Bearer TOKEN`, with a token that a provider has signed.

    `jwks`: the provider's key set, as a URL or a file. A file is read again when it has changed. A URL is fetched
    every five minutes, and when a token has an unknown key id. `issuer` and `audience` must be those of the token.
    Only `algorithms` are accepted, whatever the token names. A token without an expiry is refused.

    The principal's user is the claim `user_claim`, its scopes are those of `scope` or `scp`, its claims are all.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | Sequence[str],
        jwks: str | os.PathLike[str],
        algorithms: Sequence[str] = ("RS256",),
        user_claim: str = "sub",
        leeway: float = 10.0,
    ) -> None:
        """`leeway`: seconds by which the clocks of provider and app may differ.

        Raises ConfigurationError: a value that cannot be used, or a file that cannot be read.
        """
        if isinstance(algorithms, str) or not algorithms or not set(algorithms) <= set(ALGORITHMS):
            raise ConfigurationError(
                f"JWT: algorithms must be a list of {', '.join(ALGORITHMS)}, not {algorithms!r}"
            )
        if not issuer or not audience:
            raise ConfigurationError(
                "JWT: issuer and audience must not be empty; they are what the token must name"
            )
        self._issuer = issuer
        self._audience = audience
        self._algorithms = list(algorithms)
        self._user_claim = user_claim
        self._leeway = leeway
        self._keys = URLKeys(jwks) if isinstance(jwks, str) and "://" in jwks else FileKeys(os.fspath(jwks))

    async def __call__(self, request: Request | Websocket) -> Principal | None:
        """Return the principal, None without a token.

        Raises:
            InvalidCredentials: signature, issuer, audience, time or user are wrong.
            CredentialsExpired: the token was right, and has expired.
            BackendUnavailable: the provider's keys are not known, because it does not answer.
        """
        token = bearer_token(request)
        if token is None:
            return None
        claims = await self._checked(token)
        scopes = [*words_of(claims.get("scope")), *words_of(claims.get("scp"))]
        return Principal(user_of(claims.get(self._user_claim)), claims, frozenset(scopes))

    async def _checked(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in self._algorithms:
                raise InvalidCredentials
            key = await self._keys.key(header.get("kid"))
            return jwt.decode(
                token,
                key.key,
                algorithms=self._algorithms,
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway,
                options={"require": list(REQUIRED)},
            )
        except jwt.ExpiredSignatureError as error:
            raise CredentialsExpired from error
        # For malformed tokens, the library also raises errors of its parsers that are not its own.
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidCredentials from error
