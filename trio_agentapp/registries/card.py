"""An agent card as JSON. Cards are the user's data: they are checked before they are sent anywhere."""

from __future__ import annotations

import orjson

from ..abc import AgentCard
from ..errors import ConfigurationError

__all__ = ["json_of", "name_of"]


def name_of(agent_card: AgentCard) -> str:
    """Return the name by which an agent is registered.

    Raises:
        ConfigurationError: there is none.
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
        ConfigurationError: a value is no JSON.
    """
    try:
        return orjson.dumps(dict(agent_card))
    except TypeError as exc:
        raise ConfigurationError(f"agent card: a value of {agent_card.get('name')!r} is no JSON: {exc}") from exc
