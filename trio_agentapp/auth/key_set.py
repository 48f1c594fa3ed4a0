"""The public keys of an identity provider: a JSON Web Key Set (RFC 7517), from a file or a URL."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import orjson
import trio

from ..errors import BackendUnavailable, ConfigurationError, InvalidCredentials
from ..protocol.text import describe_exception, masked_url
from .watched_file import WatchedFile

__all__ = ["FileKeys", "KeySet", "URLKeys", "parse_key_set"]

logger = logging.getLogger("trio_agentapp.auth")

FETCH_TIMEOUT = 5.0
"""Seconds of a whole fetch. It must be shorter than `auth_timeout`."""

MAX_ANSWER = 512 * 1024
"""Bytes of a key set. Large providers have 20 KB."""

MAX_KEYS = 100

REFRESH_INTERVAL = 300.0
"""Seconds after which the keys are fetched again, so that a key that the provider has withdrawn is dropped."""

RETRY_INTERVAL = 10.0
"""Seconds between two fetches at least. Tokens with made-up key ids cannot cause more."""

MAX_STALE = 3600.0
"""Seconds that keys are used while the provider does not answer."""

HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
"""Asks for an uncompressed response, so that the limit of its size is also a limit of the keys."""

LEAST_RSA_BITS = 2048
"""RFC 7518, section 3.3. Shorter keys can be broken."""

KeySet = dict[str | None, jwt.PyJWK]


def parse_key_set(data: bytes) -> KeySet:
    """Read a key set: keys for signatures by their id.

    Left out are secret (`oct`) and private keys, because every reader of the set could sign with them, RSA keys
    that are too short, and unknown kinds.

    Raises ConfigurationError: it is not a key set, or has no such key.
    """
    try:
        found = orjson.loads(data)["keys"]
        if not isinstance(found, list):
            raise TypeError  # noqa: TRY301
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError("it is not a JSON Web Key Set: an object with the list `keys`") from error
    keys: KeySet = {}
    for each in found[:MAX_KEYS]:
        if isinstance(each, dict) and (key := _public_key(each)) is not None:
            keys[key.key_id] = key
    if not keys:
        raise ConfigurationError("it has no public key for signatures")
    return keys


def _public_key(fields: dict[str, Any]) -> jwt.PyJWK | None:
    if fields.get("kty") == "oct" or fields.get("use", "sig") != "sig" or "d" in fields:
        return None
    if not isinstance(fields.get("kid"), str | None):
        return None
    try:
        key = jwt.PyJWK.from_dict(fields)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return None if key.key_type == "RSA" and key.key.key_size < LEAST_RSA_BITS else key


class FileKeys:
    """The keys of a file, which is read again when it has changed."""

    def __init__(self, path: str) -> None:
        self._file: WatchedFile[KeySet] = WatchedFile(path, parse_key_set, empty={})

    async def key(self, key_id: str | None) -> jwt.PyJWK:
        """Return a key. Raises InvalidCredentials: there is none with this id."""
        return _chosen(await self._file.current(), key_id)


class URLKeys:
    """The keys at a URL. Requests that need them wait for one fetch."""

    def __init__(self, url: str) -> None:
        """Raises ConfigurationError: the URL is not https. http is allowed for this machine only."""
        parts = urlsplit(url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.scheme != "https" and not (parts.scheme == "http" and local):
            raise ConfigurationError(
                f"JWT: jwks {masked_url(url)!r} must be https, because who can change the keys can sign tokens"
            )
        self._url = url
        self._keys: KeySet = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._lock = trio.Lock()

    async def key(self, key_id: str | None) -> jwt.PyJWK:
        """Return a key.

        Raises:
            InvalidCredentials: the provider has none with this id.
            BackendUnavailable: the provider does not answer, and there are no keys that are fresh enough.
        """
        # While another request fetches, those whose key is known do not wait.
        if self._due(key_id) and not (key_id in self._keys and self._lock.locked()):
            async with self._lock:
                if self._due(key_id):  # another request may have fetched them meanwhile
                    await self._fetch()
        if trio.current_time() - self._fetched_at > MAX_STALE:
            raise BackendUnavailable(
                "The keys of the identity provider cannot be fetched.", retry_after=RETRY_INTERVAL
            )
        return _chosen(self._keys, key_id)

    def _due(self, key_id: str | None) -> bool:
        now = trio.current_time()
        if now - self._tried_at < RETRY_INTERVAL:
            return False
        return now - self._fetched_at >= REFRESH_INTERVAL or (key_id is not None and key_id not in self._keys)

    async def _fetch(self) -> None:
        """Fetch the keys. If that fails, the old ones stay, and it is logged.

        It is shielded, because other requests wait for the result: a client that hangs up must not cancel their
        fetch.
        """
        try:
            with trio.fail_after(FETCH_TIMEOUT, shield=True):
                self._keys = parse_key_set(await self._download())
        except (httpx.HTTPError, trio.TooSlowError, ConfigurationError) as error:
            shown = masked_url(self._url)
            logger.error("the keys at %s cannot be fetched: %s", shown, describe_exception(error))  # noqa: TRY400
        else:
            self._fetched_at = trio.current_time()
        finally:
            self._tried_at = trio.current_time()

    async def _download(self) -> bytes:
        pieces = bytearray()
        async with (
            httpx.AsyncClient(timeout=FETCH_TIMEOUT, follow_redirects=False) as client,
            client.stream("GET", self._url, headers=HEADERS) as response,
        ):
            if response.status_code != 200:
                raise ConfigurationError(f"the answer has status {response.status_code}")
            with trio.CancelScope() as scope:
                async for piece in response.aiter_raw():
                    pieces += piece
                    if len(pieces) > MAX_ANSWER:
                        # httpx has nested generators. Cancelling a read ends all of them. Leaving the loop would
                        # leave the inner ones to the garbage collector.
                        scope.cancel(reason="the answer is too large")
        if len(pieces) > MAX_ANSWER:
            raise ConfigurationError(f"the answer has more than {MAX_ANSWER:,} bytes")
        return bytes(pieces)


def _chosen(keys: KeySet, key_id: str | None) -> jwt.PyJWK:
    """Return the key with this id. A token without an id (RFC 7515, section 4.1.4) takes the only key."""
    if key_id is None and len(keys) == 1:
        return next(iter(keys.values()))
    if (key := keys.get(key_id)) is None:
        raise InvalidCredentials
    return key
