"""Makes the registries that environment variables select, for an app whose code names none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..abc import AgentRegistry
from ..errors import ConfigurationError
from .foreign import as_registry, listed

__all__ = ["registries_from_environment", "registries_of"]

ENABLED = "A2A_REGISTRY_ENABLED"
TYPE = "A2A_REGISTRY_TYPE"
REDIS_URL = "A2A_REGISTRY_REDIS_URL"
NACOS = ("server_addr", "username", "password", "namespace_id", "access_key", "secret_key")
"""Arguments of NacosRegistry, each with a variable: `NACOS_SERVER_ADDR`."""

YES = ("true", "1", "yes", "on")
NO = ("false", "0", "no", "off")


def registries_from_environment(
    environment: Mapping[str, str] | None = None, *, redis_url: str | None = None, prefix: str = "agentapp"
) -> Sequence[AgentRegistry]:
    """Return the registries that the environment selects; none if it selects none.

    `A2A_REGISTRY_TYPE` names them, separated by commas: `redis`, `nacos`, `dns-sd`. Without it, any `NACOS_...`
    variable selects Nacos, as in the product that this package replaces. `A2A_REGISTRY_ENABLED=false` selects none.

    Args:
        environment: `os.environ` by default.
        redis_url: server for the registry in Redis if `A2A_REGISTRY_REDIS_URL` is not set.
        prefix: beginning of the keys in Redis.

    Raises:
        ConfigurationError: a value is wrong; the message names the variable.
    """
    values = os.environ if environment is None else environment
    enabled = _flag(values)
    names = [name.strip().lower() for name in values.get(TYPE, "").split(",") if name.strip()]
    if enabled is False:
        return []
    if not names:
        if any(values.get(f"NACOS_{name.upper()}") for name in NACOS):
            names = ["nacos"]
        elif enabled:
            raise ConfigurationError(
                f"{ENABLED} is on, and {TYPE} names no registry; set it to redis, nacos or dns-sd"
            )
    makers: dict[str, Callable[[], AgentRegistry]] = {
        "redis": lambda: _redis(values.get(REDIS_URL) or redis_url, prefix),
        "nacos": lambda: _nacos(values),
        "dns-sd": _dns_sd,
    }
    for name in names:
        if name not in makers:
            raise ConfigurationError(f"{TYPE}: {name!r} is unknown; the registries are {', '.join(makers)}")
    return [makers[name]() for name in dict.fromkeys(names)]


def registries_of(
    given: object, *, redis_url: str | None = None, prefix: str = "agentapp"
) -> Sequence[AgentRegistry]:
    """Return the registries given by the code, one or a list. If it gives none, return those of the environment.

    Returns none if `A2A_REGISTRY_ENABLED` is false, so an operator can disable the registries of an app.

    Raises ConfigurationError if an object is not a registry, there are too many, or a variable is wrong.
    """
    if given is None:
        return registries_from_environment(redis_url=redis_url, prefix=prefix)
    named = [as_registry(each) for each in listed(given)]
    return [] if _flag(os.environ) is False else named


def _flag(values: Mapping[str, str]) -> bool | None:
    text = values.get(ENABLED, "").strip().lower()
    if text and text not in YES + NO:
        raise ConfigurationError(f"{ENABLED} must be true or false, not {text!r}")
    return text in YES if text else None


def _redis(url: str | None, prefix: str) -> AgentRegistry:
    from .redis import RedisRegistry

    if not url:
        raise ConfigurationError(
            f"{TYPE} names redis, and there is no server; set {REDIS_URL}, or interrupt_redis_url"
        )
    try:
        return RedisRegistry(url, prefix=prefix)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{REDIS_URL}: {exc}") from exc


def _nacos(values: Mapping[str, str]) -> AgentRegistry:
    from .nacos import NacosRegistry

    arguments: dict[str, Any] = {name: values.get(f"NACOS_{name.upper()}", "") for name in NACOS}
    return NacosRegistry(**arguments)


def _dns_sd() -> AgentRegistry:
    from .dns_sd import DnsSdRegistry

    try:
        return DnsSdRegistry()
    except ConfigurationError as exc:
        raise ConfigurationError(f"{TYPE} is dns-sd, and cannot be used: {exc}") from exc
