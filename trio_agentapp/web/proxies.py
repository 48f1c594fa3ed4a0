"""Finds the address of a client and the URL that it has requested when there are proxies before the app.

This is the only place that reads `Forwarded` (RFC 7239) and `X-Forwarded-*`. It puts what it finds into the scope
of the request, so that everything after it sees the client's address and the scheme, host and path of the client's
URL: links, documents, checks of hosts and origins, hooks, middleware and logs.

Every client can send these headers. They are read only on connections from a trusted proxy, and only as far as
trusted proxies have written them. Each proxy appends the address of its own peer. So the list is read from its end:
addresses of trusted proxies are skipped, and the first other address is the client's. Everything before it was sent
by the client, and is ignored.
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
"""The most proxies that are read from the headers: more than any network has."""

UNIX = "unix"
"""The entry for proxies that connect by a Unix socket, in the list of trusted proxies."""

VARY = "Host, Forwarded, X-Forwarded-Host, X-Forwarded-Port, X-Forwarded-Prefix, X-Forwarded-Proto"
"""The value of `Vary`: the request headers on which links depend."""

ROOT_PATH = re.compile(r"(/(?!\.\.?(/|$))[\w.~!$&'()*+;=:@-]+)*/?", re.ASCII)
"""A path prefix: segments that need no percent-encoding, and neither `//`, which would begin a host, nor `..`."""

HOST = re.compile(r"(?P<name>[a-z0-9_.-]+|\[[0-9a-f:.]+\])(:(?P<port>\d{1,5}))?", re.ASCII | re.IGNORECASE)
NODE = re.compile(r"(?:\[([^\]]*)\]|([0-9.]+))(?::\w+)?", re.ASCII)
"""An address as headers have it: `192.0.2.7`, `192.0.2.7:4711`, `[2001:db8::7]`, `[2001:db8::7]:4711`."""

PAIR = re.compile(r"([\w!#$%&'*+.^`|~-]+)=(\"[^\"]*\"|[^\s\"]+)", re.ASCII)
"""A parameter of `Forwarded`. Values with `:` or `[` have to be quoted by the RFC, but often are not."""

SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
DEFAULT_PORTS = ("80", "443")


@attrs.frozen
class _Told:
    """What trusted proxies have written about a request; None or "" for what they have not."""

    address: str | None = None
    scheme: str | None = None
    host: str | None = None
    prefix: str = ""


class Proxies:
    """The proxies that an app trusts, and the path prefix that it is served under.

    Args:
        trusted: addresses and networks of proxies; `unix` for those that connect by a Unix socket.
        root_path: the prefix; a prefix that a trusted proxy sends takes precedence.

    Raises ValueError: an address cannot be read, or a network has every address.
    """

    def __init__(self, trusted: Iterable[str] = (), root_path: str = "") -> None:
        named = list(trusted)
        self._networks = read_networks(text for text in named if text != UNIX)
        self._unix = UNIX in named
        self._any = bool(named)
        self._root_path = root_path.rstrip("/")

    def client_scope(self, scope: AnyScope) -> AnyScope:
        """Return a scope with the client's address, scheme, host and path; the same object if nothing differs."""
        known: Any = scope
        told = _Told()
        if self._any and self._trusts_peer(known.get("client")):
            told = self._read(_headers_of(known))
        of_server = known.get("root_path", "")
        root_path = told.prefix or self._root_path or of_server.rstrip("/")
        if told == _Told() and not root_path and not of_server:
            return scope
        changed = dict(known)
        # A proxy that sends a prefix has removed it from the path. With `root_path` it may or may not have removed
        # it.
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
            # The proxy nearest to the client comes first, since it has received the client's own URL.
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
        """Find the client in the addresses that proxies have appended; the one from the nearest proxy comes first.

        Returns its address, and the number of entries that trusted proxies have written. The address is None if the
        entry is missing or cannot be read, such as `unknown` of RFC 7239.
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
    """Return the members of a list that may be split over several headers of the same name."""
    return [part.strip() for value in headers.get(name, ()) for part in value.split(",")]


def _believed(values: Sequence[str], hops: Sequence[str], count: int) -> str | None:
    """Return the value of a header such as `X-Forwarded-Proto` from the trusted proxy nearest to the client.

    If each proxy has appended a value, there are as many values as in `X-Forwarded-For`. Otherwise the last value
    is used: the proxy nearest to this server has written it or passed it on.
    """
    if not values:
        return None
    return values[-count] if count and len(values) == len(hops) else values[-1]


def _elements(headers: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """Yield the elements of `Forwarded`, the last one first. Stop at one that cannot be read.

    A comma separates elements here even inside quotes. No address, scheme or host has a comma. So a quote that the
    client has not closed cannot hide the elements that proxies have appended.
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
    """Return the address of a node, without its port; None if it is not an address."""
    found = NODE.fullmatch(node)
    address = read_address((found[1] or found[2]) if found else node)
    return None if address is None else str(address)


def _host(text: str, port: str | None) -> str | None:
    """Return the host with the port of the client's URL; None if it is not a host.

    `port` is added if the host has none. 80 and 443 are not added: they are default ports, or ports of a proxy
    behind another one.
    """
    found = HOST.fullmatch(text)
    if found is None or int(found["port"] or 1) not in range(1, 65536):
        return None
    if found["port"] is None and port and re.fullmatch(r"[1-9]\d{0,4}", port, re.ASCII):
        return text if port in DEFAULT_PORTS or int(port) > 65535 else f"{text}:{port}"
    return text


def _prepend(scope: dict[str, Any], root_path: str, *, removed: bool) -> None:
    """Add the prefix to the path, unless it begins with it.

    `removed`: add it in any case, as a proxy has removed it.
    """
    scope["root_path"] = root_path
    path = scope["path"]
    if removed or not (path == root_path or path.startswith(root_path + "/")):
        scope["path"] = root_path + path
        if scope.get("raw_path") is not None:
            scope["raw_path"] = root_path.encode("ascii") + scope["raw_path"]
    elif path == root_path:
        scope["path"] = root_path + "/"
