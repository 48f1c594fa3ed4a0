"""Where an agent is: by its URL, its card, or its name in a registry."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias
from urllib.parse import urljoin

import attrs
import trio

from ...errors import A2AError, AgentAppError, ConfigurationError, ConnectionLost, UnexpectedAnswer
from .bindings import Call
from .card import WELL_KNOWN, Interface, card_url_of, interface_of, origin_of
from .http import Http

__all__ = ["Agent", "Place", "find_agent", "places_of"]

Agent: TypeAlias = str | Mapping[str, Any]
"""The URL of an agent or of its card, the card itself, or with a registry a name."""

MAX_INSTANCES = 16
"""Instances of one name that are tried."""


RESOLVE_WITHIN = 10.0
"""Seconds for the answer of a registry."""


@attrs.frozen
class Place:
    """Where to look for an agent: at the URL of its card, or in a card that is trusted."""

    url: str | None
    card: Mapping[str, Any] | None = None


async def places_of(agent: Agent, registry: Any) -> list[Place]:
    """Return where an agent may be, in random order if there are several instances.

    `registry`: an object with `resolve(name)`, async or not. It returns instances (objects with `agent_card` and
    `url`, as `RegisteredAgent`), URLs or cards.

    Raises:
        ConfigurationError: the agent is given in a wrong form. ConnectionLost: the registry has no such agent, has
            failed, or did not answer in time. What a registry of this package raises is passed on.
    """
    if isinstance(agent, Mapping):
        return [Place(None, agent)]
    if registry is None or agent.startswith(("http://", "https://")):
        return [Place(card_url_of(agent))]
    found = await _resolved(agent, registry)
    several = found if isinstance(found, Iterable) and not isinstance(found, str | Mapping) else [found]
    places, odd = [], None
    for one in several:
        try:
            if one is not None:
                places.append(_place(one, agent))
        except ConfigurationError as error:
            odd = error
    if not places:
        raise odd or ConnectionLost(f"the registry has no live instance of agent {agent!r:.200}")
    random.shuffle(places)
    return places[:MAX_INSTANCES]


async def _resolved(name: str, registry: Any) -> Any:
    try:
        with trio.fail_after(RESOLVE_WITHIN):
            found = registry.resolve(name)
            return await found if inspect.isawaitable(found) else found
    except trio.TooSlowError:
        raise ConnectionLost(f"the registry did not answer within {RESOLVE_WITHIN:g} s") from None
    except AgentAppError:
        raise
    except Exception as error:
        raise ConnectionLost(f"the registry failed: {type(error).__name__}: {error}") from error


def _place(found: Any, name: str) -> Place:
    if isinstance(found, str):
        return Place(card_url_of(found))
    if isinstance(found, Mapping):
        return Place(None, found)
    card, url = getattr(found, "agent_card", None), getattr(found, "url", None)
    if isinstance(card, Mapping) and getattr(found, "card_is_whole", True):
        return Place(None, card)
    if isinstance(url, str) and origin_of(url) is not None:
        # It is the URL of an interface. The card is at the root of its server.
        return Place(card_url_of(urljoin(url, "/")))
    raise ConfigurationError(
        f"the registry returned {type(found).__name__} for agent {name!r:.200}; needed is an object with "
        "agent_card and url, the URL of an agent, or a card"
    )


async def find_agent(
    http: Http, places: list[Place], trusted_origins: frozenset[str], headers: Mapping[str, str]
) -> tuple[Mapping[str, Any], Interface]:
    """Return the card of the first place that has one, and the interface that is used.

    Raises what the last place has raised: ConnectionLost, A2AError, UnexpectedAnswer or ConfigurationError.
    """
    for index, place in enumerate(places):
        try:
            return await _card_at(http, place, trusted_origins, headers, alone=len(places) == 1)
        except AgentAppError:
            if index == len(places) - 1:
                raise
    raise ConfigurationError("there is no address at which the agent could be looked for")


async def _reach(http: Http, interface: Interface, headers: Mapping[str, str]) -> None:
    """Raises ConnectionLost: nothing answers where the interface is. A registry may name dead instances."""
    with suppress(A2AError, UnexpectedAnswer):
        await http.document(Call("GET", urljoin(interface.url, WELL_KNOWN)), headers)


async def _card_at(
    http: Http, place: Place, trusted_origins: frozenset[str], headers: Mapping[str, str], *, alone: bool
) -> tuple[Mapping[str, Any], Interface]:
    if place.card is not None:
        interface = interface_of(place.card, None)
        if not alone:
            await _reach(http, interface, headers)
        return place.card, interface
    assert place.url is not None  # noqa: S101  a place has a card or a URL
    card = await http.document(Call("GET", place.url), headers)
    if not isinstance(card, dict):
        raise UnexpectedAnswer(f"{place.url} answered with JSON that is not an agent card")
    own = origin_of(place.url)
    return card, interface_of(card, trusted_origins | ({own} if own is not None else set()))
