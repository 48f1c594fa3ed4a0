"""`AgentCardWithRuntimeConfig`: the agent card, and how the app serves A2A."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any

import attrs

from ...errors import ConfigurationError
from ...protocol.structure import Faults
from .card_reader import plain_card, read_card
from .versions import VERSIONS

__all__ = ["WELL_KNOWN_PATH", "AgentCardWithRuntimeConfig"]

WELL_KNOWN_PATH = "/.well-known/agent-card.json"


def _checked(what: str, right: Callable[[Any], bool]) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    """Return a validator that refuses values that are not right. `what`: what a value must be."""

    def validate(_instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not right(value):
            raise ConfigurationError(f"a2a_config.{attribute.name} must be {what}, not {value!r}")

    return validate


def _is_number(value: Any, kinds: type | UnionType) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


_seconds = _checked(
    "a number of seconds, more than 0, or None",
    lambda value: value is None or (_is_number(value, int | float) and 0 < value < math.inf),
)
_path = _checked(
    f"a path such as {WELL_KNOWN_PATH!r}",
    lambda value: isinstance(value, str) and value.startswith("/") and value != "/" and not set(value) & set("<?"),
)
_port = _checked(
    "a port from 1 to 65535", lambda value: value is None or (_is_number(value, int) and 0 < value < 65536)
)
_host = _checked(
    "a host name such as 'agent.example.com'",
    lambda value: value is None or (isinstance(value, str) and value != "" and not set(value) & set("/?#@ \r\n")),
)


def _versions(value: Any) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else list(VERSIONS) if value is None else list(value)
    short = [".".join(each.split(".")[:2]) if isinstance(each, str) else each for each in listed]
    for each in short:
        if each not in VERSIONS:
            raise ConfigurationError(
                f"a2a_config.protocol_versions must be of {', '.join(VERSIONS)}, and has {each!r}"
            )
    if not short:
        raise ConfigurationError("a2a_config.protocol_versions must name a version")
    return tuple(name for name in VERSIONS if name in short)


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _card(name: str, value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    faults = Faults()
    card = read_card(plain_card(value), name, faults)
    if faults.found:
        listed = "".join(f"\n  {path} {text}" for path, text in faults.found)
        raise ConfigurationError(f"a2a_config: the agent card is not valid:{listed}")
    return card


def _agent_card(value: Any) -> dict[str, Any] | None:
    return _card("agent_card", value)


def _extended_card(value: Any) -> dict[str, Any] | None:
    return _card("extended_card", value)


@attrs.frozen(kw_only=True)
class AgentCardWithRuntimeConfig:
    """What an app tells other agents about itself, and how it serves them.

        AgentApp(a2a_config=AgentCardWithRuntimeConfig(
            agent_card={"skills": [{"id": "report", "name": "Report", "description": "...", "tags": ["report"]}]},
            task_timeout=120,
        ))

    Raises ConfigurationError: a value cannot work; for a card the message has the path of each fault.
    """

    agent_card: Any = attrs.field(default=None, converter=_agent_card)
    """A card of A2A 1.0 or 0.3, or a part of one: a dict or an object of an SDK. The app completes it."""
    host: str | None = attrs.field(default=None, validator=_host)
    """The host in the addresses of the card. None: the one that the client has used."""
    port: int | None = attrs.field(default=None, validator=_port)
    """The port in the addresses of the card, beside `host`."""
    registry: Any = None
    """Where the agent is registered: one registry or a list of them."""
    task_timeout: float | None = attrs.field(default=None, validator=_seconds)
    """Seconds that a task may take; it fails after that. None: no limit."""
    task_event_timeout: float | None = attrs.field(default=None, validator=_seconds)
    """Seconds without an event after which a working task fails; it may wait for an answer. None: no limit."""
    wellknown_path: str = attrs.field(default=WELL_KNOWN_PATH, validator=_path)
    """Where the card is served."""
    protocol_versions: tuple[str, ...] = attrs.field(default=None, converter=_versions)
    """The versions of A2A that are served: "1.0", "0.3" or both, which makes a hybrid card."""
    extended_card: Any = attrs.field(default=None, converter=_extended_card)
    """What authenticated clients see beside the card, or instead of the same fields in it. Needs `authenticate`."""
    push_hosts: tuple[str, ...] = attrs.field(default=(), converter=_names)
    """Hosts that may get push notifications although their addresses are private, such as "hooks.internal"."""
