"""What a client has requested, and from which address, when there are proxies between it and the app.

This is the only place that reads `Forwarded` (RFC 7239) and `X-Forwarded-*`. It puts what it finds into the scope
of the request, so that everything after it sees the client's address and the scheme, host and path of the client's
URL: links, documents, checks of hosts and origins, hooks, middleware and logs.

Every client can send these headers. They are read only on connections from a trusted proxy, and only as far as
trusted proxies have written them. Each proxy appends the address that its own connection came from. So the list is
read from its end: the addresses of trusted proxies are passed over, and the first other one is the client's. What
stands before it comes from the client, and is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs
from hypercorn.typing import Scope

from ..protocol.hosts import read_address, read_networks
from ..server.extensions import PEER, add_extension

__all__ = ["ROOT_PATH", "VARY", "Proxies"]

AnyScope = TypeVar("AnyScope", bound=Scope)

MAX_HOPS = 32
"""Proxies between client and app that are looked at: more than any network has."""

UNIX = "unix"
"""In the list of trusted proxies: one that connects by a Unix socket."""

VARY = "Host, Forwarded, X-Forwarded-Host, X-Forwarded-Port, X-Forwarded-Prefix, X-Forwarded-Proto"
"""The request headers that links depend on, for caches."""

ROOT_PATH = re.compile(r"(/(?!\.\.?(/|$))[\w.~!$&'()*+;=:@-]+)*/?", re.ASCII)
"""A path prefix: segments that need no percent-encoding, and neither `//`, which would begin a host, nor `..`."""

HOST = re.compile(r"(?P<name>[a-z0-9_.-]+|\[[0-9a-f:.]+\])(:(?P<port>\d{1,5}))?", re.ASCII | re.IGNORECASE)
NODE = re.compile(r"(?:\[([^\]]*)\]|([0-9.]+))(?::\w+)?", re.ASCII)
"""An address as headers have it: `192.0.2.7`, `192.0.2.7:4711`, `[2001:db8::7]`, `[2001:db8::7]:4711`."""

PAIR = re.compile(r"([\w!#$%&'*+.^`|~-]+)=(\"[^\"]*\"|[^\s\"]+)", re.ASCII)
"""A parameter of `Forwarded`. Values with `:` or `[` should be quoted, and often are not."""

SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
DEFAULT_PORTS = ("80", "443")


@attrs.frozen
class _Told:
    """What trusted proxies have said of a request; None and "" for what they have not."""

    address: str | None = None
    scheme: str | None = None
    host: str | None = None
    prefix: str = ""


class Proxies:
    """The proxies that an app trusts, and the path prefix that it is served under.

    Args:
        trusted: addresses and networks of proxies; `unix` for those that connect by a Unix socket.
        root_path: the prefix; a prefix that a trusted proxy sends takes precedence.

    Raises ValueError: an address cannot be read, or is every address.
    """

    def __init__(self, trusted: Iterable[str] = (), root_path: str = "") -> None:
        named = list(trusted)
        self._networks = read_networks(text for text in named if text != UNIX)
        self._unix = UNIX in named
        self._any = bool(named)
        self._root_path = root_path.rstrip("/")

    def client_scope(self, scope: AnyScope) -> AnyScope:
        """Return the scope of the request as the client has made it; the same object if nothing differs."""
        known: Any = scope
        told = _Told()
        if self._any and self._trusts_peer(known.get("client")):
            told = self._read(_headers_of(known))
        of_server = known.get("root_path", "")
        root_path = told.prefix or self._root_path or of_server.rstrip("/")
        if told == _Told() and not root_path and not of_server:
            return scope
        changed = dict(known)
        # A proxy that sends a prefix has removed it from the path. With `root_path` it may have, or not.
        _prepend(changed, root_path, removed=bool(told.prefix))
        if told.address is not None:
            changed["client"] = (told.address, 0)
            add_extension(changed, PEER, (known.get("client") or [UNIX])[0])  # type: ignore[arg-type]
        if told.scheme is not None:
            secure = told.scheme == "https"
            changed["scheme"] = ("wss" if secure else "ws") if known["type"] == "websocket" else told.scheme
        if told.host is not None:
            others = [(name, value) for name, value in known["headers"] if name != b"host"]
            changed["headers"] = [(b"host", told.host.encode("ascii")), *others]
        return changed  # type: ignore[return-value]

    def _trusts_peer(self, client: Sequence[Any] | None) -> bool:
        if not client or not client[0]:
            return self._unix
        return self._trusts(client[0])

    def _trusts(self, text: str) -> bool:
        address = read_address(text)
        return address is not None and any(address in network for network in self._networks)

    def _read(self, headers: Mapping[str, Sequence[str]]) -> _Told:
        hops = _values(headers, "x-forwarded-for")
        if not hops and "forwarded" in headers:
            elements = list(_elements(headers))
            address, count = self._client([each.get("for", "") for each in elements])
            # Nearest to the client first: that proxy has seen the client's own URL.
            believed = elements[:count][::-1]
            scheme = next((each["proto"] for each in believed if "proto" in each), None)
            host = next((each["host"] for each in believed if "host" in each), None)
            port = None
        else:
            address, count = self._client(hops[::-1])
            scheme = _believed(_values(headers, "x-forwarded-proto"), hops, count)
            host = _believed(_values(headers, "x-forwarded-host"), hops, count)
            port = _believed(_values(headers, "x-forwarded-port"), hops, count)
        prefixes = _values(headers, "x-forwarded-prefix")[-max(count, 1) :]
        return _Told(
            address=address,
            scheme=SCHEMES.get((scheme or "").lower()),
            host=_host(host or "".join(headers.get("host", ())[:1]), port) if host or port else None,
            # Each proxy of a chain may have removed a prefix of its own.
            prefix="".join(each.rstrip("/") for each in prefixes if ROOT_PATH.fullmatch(each)),
        )

    def _client(self, nodes: Sequence[str]) -> tuple[str | None, int]:
        """Find the client in what proxies have appended, the nearest proxy's first.

        Returns its address, and how many of the nodes trusted proxies have written. The address is None if the
        nearest proxy has named none, or one that cannot be read, as `unknown` of RFC 7239.
        """
        found, count = None, 0
        for node in nodes[:MAX_HOPS]:
            count += 1
            address = _address(node)
            if address is None:
                break
            found = address
            if not self._trusts(found):
                break
        return found, count


def _headers_of(scope: Mapping[str, Any]) -> dict[str, list[str]]:
    wanted = ("host", "forwarded")
    found: dict[str, list[str]] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        if name in wanted or name.startswith("x-forwarded-"):
            found.setdefault(name, []).append(value.decode("latin-1"))
    return found


def _values(headers: Mapping[str, Sequence[str]], name: str) -> list[str]:
    """The members of a list that may be spread over several headers of the same name."""
    return [part.strip() for value in headers.get(name, ()) for part in value.split(",")]


def _believed(values: Sequence[str], hops: Sequence[str], count: int) -> str | None:
    """Of a header such as `X-Forwarded-Proto`, return what the trusted proxy nearest to the client has written.

    If each proxy has appended a value, there are as many as in `X-Forwarded-For`. Otherwise the last value counts,
    which the proxy nearest to this server has written or let pass.
    """
    if not values:
        return None
    return values[-count] if count and len(values) == len(hops) else values[-1]


def _elements(headers: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """The elements of `Forwarded`, last first. Ends at one that cannot be read.

    A comma always separates elements here, also one in quotes. No address, scheme or host has one, and so a quote
    that the client has not closed does not hide what a proxy has appended.
    """
    for text in reversed(_values(headers, "forwarded")):
        element: dict[str, str] = {}
        for part in filter(None, map(str.strip, text.split(";"))):
            pair = PAIR.fullmatch(part)
            if pair is None or (name := pair[1].lower()) in element:
                return  # RFC 7239, section 4: each parameter at most once
            element[name] = pair[2].strip('"')
        yield element


def _address(node: str) -> str | None:
    """The address of a node, without its port; None if it is not an address."""
    found = NODE.fullmatch(node)
    address = read_address((found[1] or found[2]) if found else node)
    return None if address is None else str(address)


def _host(text: str, port: str | None) -> str | None:
    """The host with the port of the client's URL; None if it is no host.

    `port` counts if the host has none. 80 and 443 are not added: they are the default ports, or those of a proxy
    that has another one before it.
    """
    found = HOST.fullmatch(text)
    if found is None or int(found["port"] or 1) not in range(1, 65536):
        return None
    if found["port"] is None and port and re.fullmatch(r"[1-9]\d{0,4}", port, re.ASCII):
        return text if port in DEFAULT_PORTS or int(port) > 65535 else f"{text}:{port}"
    return text


def _prepend(scope: dict[str, Any], root_path: str, *, removed: bool) -> None:
    """Give the path its prefix, if it has none. `removed`: it has none, even if it looks so."""
    scope["root_path"] = root_path
    path = scope["path"]
    if removed or not (path == root_path or path.startswith(root_path + "/")):
        scope["path"] = root_path + path
        if scope.get("raw_path") is not None:
            scope["raw_path"] = root_path.encode("ascii") + scope["raw_path"]
    elif path == root_path:
        scope["path"] = root_path + "/"
