"""Calls of a Nacos server over HTTP: log-in, signatures, answers and errors.

The source is Nacos' documentation of its HTTP APIs (version 3.1). An answer is an object of `code`, `message` and
`data`; a code other than 0 is an error.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs
import httpx
import orjson
import trio

from ..errors import ConfigurationError, RegistryError
from ..protocol.text import describe_exception, masked_url

__all__ = ["NacosHTTP", "NacosLogin", "NacosRefusal"]

CONNECT_TIMEOUT = 2.0
"""Seconds to connect to one server of a cluster."""

ANSWER_TIMEOUT = 4.0
"""Seconds to wait for the next bytes of an answer."""

MAX_ANSWER = 32 * 1024 * 1024
"""Limit of an answer in bytes. 10,000 instances take 5 MB."""

MAX_MESSAGE = 300
"""Limit of characters of a server's message in an error."""

LOGIN_PART = 0.8
"""Fraction of a token's lifetime after which a new one is requested."""

LOGIN = "/v3/auth/user/login"


class NacosRefusal(RegistryError):
    """The server refused a call. `status` is the HTTP status, `code` that of Nacos (0 if there was none)."""

    def __init__(self, message: str, *, status: int, code: int) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@attrs.frozen(kw_only=True)
class NacosLogin:
    """The credentials: user and password, an access key of Alibaba Cloud, or none."""

    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    access_key: str | None = None
    secret_key: str | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        for first, second, names in (
            (self.username, self.password, "NACOS_USERNAME and NACOS_PASSWORD"),
            (self.access_key, self.secret_key, "NACOS_ACCESS_KEY and NACOS_SECRET_KEY"),
        ):
            if bool(first) != bool(second):
                raise ConfigurationError(f"Nacos: {names} belong together; set both or none")


class NacosHTTP:
    """A client for the servers of a cluster. It first tries the server that answered last."""

    def __init__(self, addresses: str, login: NacosLogin, *, context_path: str) -> None:
        self._bases = [_base_url(address, context_path) for address in addresses.split(",") if address.strip()]
        if not self._bases:
            raise ConfigurationError("NACOS_SERVER_ADDR: give host:port, or several separated by commas")
        self._login = login
        self._token = ""
        self._token_until = 0.0
        self._client: httpx.AsyncClient | None = None

    def __str__(self) -> str:
        return ", ".join(self._bases)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Keep a pool of connections inside the block."""
        timeout = httpx.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT)
        async with httpx.AsyncClient(timeout=timeout, follow_redirects=False) as self._client:
            try:
                yield
            finally:
                self._client = None

    async def call(
        self, method: str, path: str, parameters: Mapping[str, str], *, namespace: str, service: str = ""
    ) -> Any:
        """Return the `data` of the answer. `service` is the grouped name of a service, for its signature.

        Raises:
            NacosRefusal: the server refused.
            RegistryError: no server answered, or an answer is not one of Nacos.
        """
        try:
            return await self._send(method, path, parameters, await self._headers(namespace, service))
        except NacosRefusal as refusal:
            if refusal.status not in (401, 403) or not self._token:
                raise
        # The token may have been revoked, or the server may have a new key. Log in again once.
        self._token = ""
        return await self._send(method, path, parameters, await self._headers(namespace, service))

    async def _headers(self, namespace: str, service: str) -> dict[str, str]:
        headers: dict[str, str] = {}
        if self._login.username:
            if not self._token or trio.current_time() >= self._token_until:
                await self._log_in()
            headers["accessToken"] = self._token
        if self._login.access_key and self._login.secret_key:
            headers |= _signed(self._login.access_key, self._login.secret_key, namespace, service)
        return headers

    async def _log_in(self) -> None:
        form = {"username": self._login.username or "", "password": self._login.password or ""}
        try:
            answer = await self._send("POST", LOGIN, form, {})
        except NacosRefusal as refusal:
            raise NacosRefusal(
                f"{refusal} Check NACOS_USERNAME and NACOS_PASSWORD.", status=refusal.status, code=refusal.code
            ) from refusal
        token = answer.get("accessToken") if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise RegistryError(f"Nacos at {self} answered the log-in without a token")
        lifetime = answer.get("tokenTtl")
        self._token = token
        self._token_until = trio.current_time() + LOGIN_PART * (lifetime if isinstance(lifetime, int) else 3600)

    async def _send(self, method: str, path: str, parameters: Mapping[str, str], headers: Mapping[str, str]) -> Any:
        failures: list[str] = []
        for base in tuple(self._bases):
            try:
                status, body = await self._exchange(method, base + path, parameters, headers)
            except httpx.HTTPError as exc:
                failures.append(f"{base}: {describe_exception(exc)}")
                continue
            if status >= 500:
                failures.append(f"{base}: status {status}")
                continue
            self._bases.remove(base)
            self._bases.insert(0, base)
            return _data_of(base + path, status, body)
        raise RegistryError(f"Nacos does not answer: {'; '.join(failures)}")

    async def _exchange(
        self, method: str, url: str, parameters: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        if self._client is None:
            raise RuntimeError("the registry is not open; use it inside `async with registry.open()`")
        form = dict(parameters) if method in ("POST", "PUT") else None
        query = None if form else dict(parameters)
        pieces = bytearray()
        async with self._client.stream(method, url, headers=dict(headers), data=form, params=query) as response:
            async for piece in response.aiter_bytes():
                pieces += piece
                if len(pieces) > MAX_ANSWER:
                    raise RegistryError(f"the answer of {url} is larger than {MAX_ANSWER:,} bytes")
        return response.status_code, bytes(pieces)


def _data_of(url: str, status: int, body: bytes) -> Any:
    try:
        answer = orjson.loads(body)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        if status == 200 and answer.get("code", 0) in (0, 200):
            return answer["data"] if "code" in answer else answer  # a log-in answers without an envelope
        code, message = answer.get("code"), answer.get("data") or answer.get("message")
        raise NacosRefusal(
            f"Nacos refuses {url} with status {status}, code {code}: {str(message)[:MAX_MESSAGE]}.",
            status=status,
            code=code if isinstance(code, int) else 0,
        )
    if status in (401, 403):
        raise NacosRefusal(f"Nacos refuses {url} with status {status}.", status=status, code=0)
    raise RegistryError(f"{url} answered with status {status} and no JSON of Nacos 3; is NACOS_SERVER_ADDR right?")


def _base_url(address: str, context_path: str) -> str:
    """Return the base URL of the API for `host:port`, `host` or a URL."""
    text = address.strip()
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = (443 if parts.scheme == "https" else 8848) if parts.port is None else parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise ConfigurationError(
            f"NACOS_SERVER_ADDR: {masked_url(text)!r} is not an address; give host:port, such as localhost:8848"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/') or context_path}"


def _signed(access_key: str, secret_key: str, namespace: str, service: str) -> dict[str, str]:
    """Return the signature headers of Alibaba Cloud (HMAC-SHA1, Base64), as Nacos' own clients send them."""
    now = str(int(time.time() * 1000))

    def sign(text: str) -> str:
        return base64.b64encode(hmac.digest(secret_key.encode(), text.encode(), hashlib.sha1)).decode()

    if service:
        data = f"{now}@@{service}"
        return {"ak": access_key, "data": data, "signature": sign(data)}
    return {"Spas-AccessKey": access_key, "Timestamp": now, "Spas-Signature": sign(f"{namespace}++{now}")}
