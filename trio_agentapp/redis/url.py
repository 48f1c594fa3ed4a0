"""Redis URLs: the address of a server, and how to log in.

redis-py's `parse_url` reads them, so they mean the same here as there. It is not in redis-py's `__all__`; only this
module uses it. In addition there are `redis+sentinel://[user:pass@]host[:port][,host...]/service[/db]`, and
`rediss+sentinel://` with TLS to Sentinels and servers.
"""

from __future__ import annotations

import difflib
import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

import attrs
from redis.connection import parse_url

from ..errors import ConfigurationError

__all__ = ["RedisURL", "SentinelService", "TCPAddress", "TLSOptions", "UnixAddress"]

REDIS_PORT = 6379

SENTINEL_PORT = 26379

SENTINEL_SUFFIX = "+sentinel"

SCHEMES = "redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://"

SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}

CERT_REQS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


@attrs.frozen
class TCPAddress:
    host: str = "localhost"
    port: int = REDIS_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return self.path


@attrs.frozen(kw_only=True)
class SentinelService:
    """A server that Sentinels know by name. They are asked for its address before each connection."""

    sentinels: tuple[TCPAddress, ...]
    service: str
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{','.join(map(str, self.sentinels))}/{self.service}"


@attrs.frozen(kw_only=True)
class TLSOptions:
    """redis-py's `ssl_*` options without the prefix. If a CA is given, only that CA is trusted."""

    ca_certs: str | None = None
    ca_path: str | None = None
    ca_data: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    cert_reqs: str = attrs.field(default="required")
    check_hostname: bool = True
    min_version: int | None = None
    ciphers: str | None = None

    def context(self) -> ssl.SSLContext:
        """Read the files. Raises ConfigurationError if one is missing or invalid."""
        try:
            context = ssl.create_default_context(cafile=self.ca_certs, capath=self.ca_path, cadata=self.ca_data)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"ssl_ca_certs {self.ca_certs!r} cannot be read: {error}") from error
        context.check_hostname = self.check_hostname and self.cert_reqs != "none"
        context.verify_mode = CERT_REQS[self.cert_reqs]
        try:
            if self.certfile or self.keyfile:
                # Without a password here, OpenSSL would ask for it on the terminal.
                context.load_cert_chain(self.certfile or "", self.keyfile, password=self.password or "")
            if self.min_version is not None:
                context.minimum_version = ssl.TLSVersion(self.min_version)
            if self.ciphers:
                context.set_ciphers(self.ciphers)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"TLS options do not work (ssl_certfile {self.certfile!r}, ssl_keyfile {self.keyfile!r}): {error}"
            ) from error
        return context


TLS_OPTIONS = {f"ssl_{field.name}": field.name for field in attrs.fields(TLSOptions)}

OPTIONS = {
    "host", "port", "path", "db", "username", "password", "protocol", "client_name", "socket_timeout",
    "socket_connect_timeout", "connection_class", *TLS_OPTIONS,
}  # fmt: skip

Address = TCPAddress | UnixAddress | SentinelService


@attrs.frozen(kw_only=True)
class RedisURL:
    """The address of a server, and how to log in. `str` and `repr` never contain a password."""

    address: Address
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    database: int = 0
    tls: TLSOptions | None = None
    client_name: str | None = None
    call_timeout: float | None = None
    """Seconds, from `socket_timeout`; None: the client's own default."""
    connect_timeout: float | None = None
    """Seconds, from `socket_connect_timeout`; None: the client's own default."""

    @classmethod
    def parse(cls, url: str) -> RedisURL:
        """Parse a URL. Raises ConfigurationError, whose message never contains a password."""
        scheme, separator, rest = url.partition("://")
        if not separator:
            raise ConfigurationError(f"A Redis URL begins with one of {SCHEMES}.")
        if scheme.endswith(SENTINEL_SUFFIX):
            return _parse_sentinel(scheme.removesuffix(SENTINEL_SUFFIX), rest)
        return _parse_plain(scheme, rest)

    def __str__(self) -> str:
        scheme = "unix" if isinstance(self.address, UnixAddress) else "rediss" if self.tls else "redis"
        if isinstance(self.address, SentinelService):
            scheme += SENTINEL_SUFFIX
        user = f"{self.username or ''}{':***' if self.password else ''}"
        return f"{scheme}://{user}{'@' if user else ''}{self.address}{f'/{self.database}' if self.database else ''}"


def _parse_plain(scheme: str, rest: str) -> RedisURL:
    if scheme not in ("redis", "rediss", "unix"):
        raise ConfigurationError(f"{scheme!r} is not a Redis URL scheme. Use one of {SCHEMES}.")
    options = _options_of(f"{scheme}://{rest}")
    for name in options:
        if name not in OPTIONS:
            raise ConfigurationError(_unknown_option(name, OPTIONS - {"connection_class"}))
    if scheme == "unix":
        if not (path := options.get("path")):
            raise ConfigurationError("A unix:// URL needs the path of a socket: unix:///path/of/the/socket.")
        address: Address = UnixAddress(path)
    else:
        _check_path(rest, options)
        address = TCPAddress(options.get("host", "localhost"), int(options.get("port", REDIS_PORT)))
    return _build(address, options, encrypted=scheme == "rediss")


def _parse_sentinel(scheme: str, rest: str) -> RedisURL:
    if scheme not in ("redis", "rediss"):
        raise ConfigurationError(f"{scheme + SENTINEL_SUFFIX!r} is not a Redis URL scheme. Use one of {SCHEMES}.")
    location, _, query = rest.partition("?")
    authority, _, path = location.partition("/")
    userinfo, at, hosts = authority.rpartition("@")
    service, _, database = path.partition("/")
    if not service:
        raise ConfigurationError(
            "A Sentinel URL needs the name of the service: redis+sentinel://host:port/service."
        )
    if not hosts:
        raise ConfigurationError("A Sentinel URL needs at least one host: redis+sentinel://host:port/service.")
    own = {name: value for name, value in parse_qsl(query) if name in SENTINEL_OPTIONS}
    others = urlencode([(name, value) for name, value in parse_qsl(query) if name not in SENTINEL_OPTIONS])
    plain = _parse_plain(scheme, f"{userinfo}{at}sentinel/{database}?{others}")
    return attrs.evolve(
        plain,
        address=SentinelService(
            sentinels=tuple(_sentinel_address(host) for host in hosts.split(",")),
            service=unquote(service),
            username=own.get("sentinel_username"),
            password=own.get("sentinel_password"),
        ),
    )


def _sentinel_address(text: str) -> TCPAddress:
    options = _options_of(f"redis://{text}")
    if "host" not in options:
        raise ConfigurationError("A Sentinel URL has an empty host between its commas.")
    return TCPAddress(options["host"], int(options.get("port", SENTINEL_PORT)))


def _options_of(url: str) -> dict[str, Any]:
    try:
        return dict(parse_url(url))  # type: ignore[no-untyped-call]
    except ValueError as error:
        # Other messages of redis-py quote a part of the URL, which may be the password.
        named = re.match(r"Invalid value for '(\w+)'", str(error))
        reason = f"the value of {named[1]!r} is wrong" if named else "host and port cannot be told apart"
    raise ConfigurationError(
        f"The Redis URL cannot be read: {reason}. Reserved characters in user name and password are written as %xx."
    )


def _check_path(rest: str, options: Mapping[str, Any]) -> None:
    # redis-py ignores a database that it cannot read and uses 0, which may hold the data of another app.
    path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")[2].strip("/")
    if path and not path.isdecimal():
        raise ConfigurationError("The path of a Redis URL is the number of a database, as in redis://host/1.")
    if options.get("db", 0) < 0:
        raise ConfigurationError("The database of a Redis URL is a number from 0 on.")


def _build(address: Address, options: Mapping[str, Any], *, encrypted: bool) -> RedisURL:
    # The option has no effect, because replies have the same shapes with both versions.
    if (protocol := options.get("protocol", 3)) not in (2, 3):
        raise ConfigurationError(f"protocol={protocol} in the Redis URL must be 2 or 3.")
    for name in ("socket_timeout", "socket_connect_timeout"):
        if not options.get(name, 1) > 0:
            raise ConfigurationError(f"{name} in the Redis URL is a number of seconds greater than 0.")
    given = {TLS_OPTIONS[name]: value for name, value in options.items() if name in TLS_OPTIONS}
    if given and not encrypted:
        raise ConfigurationError("The Redis URL has ssl_ options, and a scheme without TLS. Use rediss://.")
    if (cert_reqs := given.get("cert_reqs", "required")) not in CERT_REQS:
        raise ConfigurationError(f"ssl_cert_reqs={cert_reqs} in a Redis URL: use one of {', '.join(CERT_REQS)}.")
    return RedisURL(
        address=address,
        username=options.get("username"),
        password=options.get("password"),
        database=options.get("db", 0),
        tls=TLSOptions(**given) if encrypted else None,
        client_name=options.get("client_name"),
        call_timeout=options.get("socket_timeout"),
        connect_timeout=options.get("socket_connect_timeout"),
    )


def _unknown_option(name: str, known: set[str]) -> str:
    nearest = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"use one of {', '.join(sorted(known))}."
    return f"{name!r} is not an option of a Redis URL; {hint}"
