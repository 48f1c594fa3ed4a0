"""Where an agent is: by its URL, its card, or its name in a registry."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import urljoin

import attrs

from ...errors import AgentAppError, ConfigurationError, ConnectionLost, UnexpectedAnswer
from .bindings import Call
from .card import Interface, card_url_of, interface_of, origin_of
from .http import Http

__all__ = ["Agent", "Place", "find_agent", "places_of"]

Agent: TypeAlias = str | Mapping[str, Any]
"""The URL of an agent or of its card, the card itself, or with a registry a name."""

MAX_INSTANCES = 16
"""Instances of one name that are tried."""


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
        ConfigurationError: the agent is given in a wrong form. ConnectionLost: the registry has no such agent.
    """
    if isinstance(agent, Mapping):
        return [Place(None, agent)]
    if registry is None or agent.startswith(("http://", "https://")):
        return [Place(card_url_of(agent))]
    found = registry.resolve(agent)
    if inspect.isawaitable(found):
        found = await found
    several = found if isinstance(found, Iterable) and not isinstance(found, str | Mapping) else [found]
    places = [_place(one, agent) for one in several if one is not None]
    if not places:
        raise ConnectionLost(f"the registry has no live instance of agent {agent!r:.200}")
    random.shuffle(places)
    return places[:MAX_INSTANCES]


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
            return await _card_at(http, place, trusted_origins, headers)
        except (AgentAppError, ConfigurationError):
            if index == len(places) - 1:
                raise
    raise ConfigurationError("no place of the agent was given")


async def _card_at(
    http: Http, place: Place, trusted_origins: frozenset[str], headers: Mapping[str, str]
) -> tuple[Mapping[str, Any], Interface]:
    if place.card is not None:
        return place.card, interface_of(place.card, None)
    assert place.url is not None  # noqa: S101  a place has a card or a URL
    card = await http.document(Call("GET", place.url), headers)
    if not isinstance(card, dict):
        raise UnexpectedAnswer(f"{place.url} answered with JSON that is not an agent card")
    own = origin_of(place.url)
    return card, interface_of(card, trusted_origins | ({own} if own is not None else set()))
