"""Agent cards: which interface of an agent is used, and whether a card may name it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import attrs

from ...errors import ConfigurationError, UnexpectedAnswer
from ...protocol.hosts import is_loopback

__all__ = ["WELL_KNOWN", "Interface", "card_url_of", "interface_of", "origin_of"]

WELL_KNOWN = "/.well-known/agent-card.json"
"""Where an agent has its card (A2A 1.0, section 14.3; the same in 0.3)."""

MAX_INTERFACES = 64
"""Interfaces of a card that are looked at."""

PREFERRED = (("JSONRPC", "1"), ("HTTP+JSON", "1"), ("JSONRPC", "0.3"))
"""Bindings and versions that this client has, the best one first."""

DEFAULT_PORTS = {"http": 80, "https": 443}


@attrs.frozen
class Interface:
    """Where and how an agent is reached. `version`: "1.0" or "0.3". `tenant`: sent with each request if given."""

    url: str
    binding: str
    version: str
    tenant: str | None = None


def interface_of(card: Mapping[str, Any], trusted: Collection[str] | None) -> Interface:
    """Return the interface of an agent that is used.

    `trusted`: the origins where it may be, such as `https://agent.example:443`; None: the card itself is trusted.

    Raises:
        UnexpectedAnswer: it is no card, or has no interface that this client has.
        ConfigurationError: it has one, but at an origin that is not trusted.
    """
    offered = list(_interfaces(card))
    refused: list[str] = []
    for binding, version in PREFERRED:
        for one in offered:
            if one.binding != binding or not _is_version(one.version, version):
                continue
            origin = origin_of(one.url)
            if origin in trusted if trusted is not None else origin is not None:
                return attrs.evolve(one, version="1.0" if version == "1" else version)
            refused.append(one.url)
    if refused and trusted is None:
        raise UnexpectedAnswer(
            f"the card of agent {_name(card)} names {refused[0]!r:.200}, which is no URL of HTTP that can be used"
        )
    if refused:
        raise ConfigurationError(
            f"the card of agent {_name(card)} names {refused[0]:.200}, which is at another origin than the card. "
            "If it is the agent's, pass that origin in trusted_origins"
        )
    found = ", ".join(f"{one.binding:.40} {one.version:.10}" for one in offered[:8]) or "none"
    raise UnexpectedAnswer(
        f"the card of agent {_name(card)} has no interface that this client has: JSONRPC of A2A 1.0 or 0.3, "
        f"HTTP+JSON of 1.0. It has: {found}"
    )


def card_url_of(url: str) -> str:
    """Return the URL of the card of an agent: the URL itself if it ends with `.json`.

    Raises ConfigurationError for anything but a URL of HTTP.
    """
    parts = _split(url)
    if parts is None or parts.query or parts.fragment:
        raise ConfigurationError(
            f"A2AClient needs the URL of an agent such as http://127.0.0.1:8090, its card, or its name and a "
            f"registry, not {url!r:.200}"
        )
    return url if parts.path.endswith(".json") else url.rstrip("/") + WELL_KNOWN


def origin_of(url: str) -> str | None:
    """Return the origin of a URL (RFC 6454) with its port. All names of the loopback interface count as one host.

    None: the URL is not one of HTTP, or has a user name in it.
    """
    parts = _split(url)
    if parts is None:
        return None
    host = (parts.hostname or "").lower()
    host = "localhost" if is_loopback(host) else host
    return f"{parts.scheme}://{host}:{parts.port or DEFAULT_PORTS[parts.scheme]}"


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.username is None
        _ = parts.port
    except ValueError:
        return None
    return parts if valid and url.isprintable() and " " not in url else None


def _interfaces(card: Mapping[str, Any]) -> Iterator[Interface]:
    """All interfaces of a card: those of 1.0, and those of 0.3, which a hybrid card has, too."""
    listed = card.get("supportedInterfaces")
    for one in listed[:MAX_INTERFACES] if isinstance(listed, list) else ():
        if isinstance(one, dict) and isinstance(url := one.get("url"), str):
            yield Interface(
                url,
                str(one.get("protocolBinding") or "JSONRPC"),
                str(one.get("protocolVersion") or "1.0"),
                one.get("tenant") if isinstance(one.get("tenant"), str) and one.get("tenant") else None,
            )
    version = str(card.get("protocolVersion") or "0.3")
    if isinstance(url := card.get("url"), str):
        yield Interface(url, str(card.get("preferredTransport") or "JSONRPC"), version)
    others = card.get("additionalInterfaces")
    for one in others[:MAX_INTERFACES] if isinstance(others, list) else ():
        if isinstance(one, dict) and isinstance(url := one.get("url"), str):
            yield Interface(url, str(one.get("transport")), version)


def _is_version(version: str, wanted: str) -> bool:
    return version == wanted or version.startswith(wanted + ".")


def _name(card: Mapping[str, Any]) -> str:
    return repr(card.get("name") or "without a name")[:100]
