"""Registries of agents: an app registers its agent card, so that other agents find it by name.

keeper       registers an app in its registries, and keeps it registered
environment  the registries that environment variables name
redis        RedisRegistry: a key for each instance, which expires
nacos        NacosRegistry: Nacos 3.1 and newer, over HTTP (nacos_http)
dns_sd       DnsSdRegistry: DNS service discovery in the local network, by zeroconf
foreign      wraps a user's own registry, whose methods may be sync
card         an agent card as JSON
watching     reports the instances of an agent again after each change

Names are imported on first use, so that a registry loads only the libraries that it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names

if TYPE_CHECKING:
    from .dns_sd import DnsSdRegistry
    from .environment import registries_from_environment, registries_of
    from .keeper import Keeper, RegistryStatus, keeping
    from .nacos import NacosRegistry
    from .redis import RedisRegistry

__all__ = [
    "DnsSdRegistry",
    "Keeper",
    "NacosRegistry",
    "RedisRegistry",
    "RegistryStatus",
    "keeping",
    "registries_from_environment",
    "registries_of",
]

_HOMES = {
    "DnsSdRegistry": "dns_sd",
    "NacosRegistry": "nacos",
    "RedisRegistry": "redis",
    "registries_from_environment": "environment",
    "registries_of": "environment",
}

__getattr__, __dir__ = lazy_names(__name__, {name: _HOMES.get(name, "keeper") for name in __all__})
