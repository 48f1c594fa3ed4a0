"""Checks agent cards, and writes them as JSON. Cards are data of the user, so they are checked before use."""

from __future__ import annotations

import orjson

from ..abc import AgentCard
from ..errors import ConfigurationError

__all__ = ["json_of", "name_of"]


def name_of(agent_card: AgentCard) -> str:
    """Return the name by which an agent is registered.

    Raises:
        ConfigurationError: the card has no name, or an empty one.
    """
    name = agent_card.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError(
            f"agent card: name must be text that is not empty, not {name!r}; agents register by it"
        )
    return name


def json_of(agent_card: AgentCard) -> bytes:
    """Return the card as JSON.

    Raises:
        ConfigurationError: a value cannot be written as JSON.
    """
    try:
        return orjson.dumps(dict(agent_card))
    except TypeError as exc:
        raise ConfigurationError(f"agent card: a value of {agent_card.get('name')!r} is not JSON: {exc}") from exc
