"""Handlers written for asyncio and for agent frameworks, run beside Trio on an asyncio loop of their own.

`framework="langgraph"` and the like name an adapter. Its module is imported when it is asked for, and needs the
framework to be installed.
"""

from __future__ import annotations

import importlib

from ..abc.frameworks import FrameworkAdapter, TypeConverters
from ..errors import ConfigurationError
from .bridge import Bridge, open_bridge

__all__ = ["AGENT_PACKAGES", "FRAMEWORKS", "Bridge", "adapter_of", "framework_of", "open_bridge"]

_ADAPTERS = {
    "asyncio": ("plain", "AsyncioAdapter", ""),
    "agentscope": ("agentscope", "AgentScopeAdapter", "agentscope"),
    "autogen": ("autogen", "AutoGenAdapter", "autogen"),
    "langgraph": ("langgraph", "LangGraphAdapter", "langgraph"),
}
"""For each framework: the module here, the class in it, and the extra that installs it."""

AGENT_PACKAGES = {
    "agentscope": "agentscope",
    "autogen_agentchat": "autogen",
    "langgraph": "langgraph",
}
"""For each package with classes of agents: the framework that runs them."""

FRAMEWORKS = ("text", *_ADAPTERS)
"""What `framework=` may be. "text" is a Trio handler."""


def adapter_of(framework: str, type_converters: TypeConverters | None = None) -> FrameworkAdapter:
    """The adapter of a framework.

    Raises:
        ValueError: the framework is not known; the message lists those that are.
        ConfigurationError: it is not installed; the message says how to install it.
    """
    if framework not in _ADAPTERS:
        raise ValueError(f"framework {framework!r} is not known; known are {', '.join(FRAMEWORKS)}")
    module, name, extra = _ADAPTERS[framework]
    try:
        found = importlib.import_module(f".{module}", __name__)
    except ModuleNotFoundError as error:
        if not extra or (error.name or "").startswith("trio_agentapp"):
            raise
        raise ConfigurationError(
            f"framework {framework!r} is not installed ({error}): pip install 'trio-agentapp[{extra}]'"
        ) from error
    adapter: FrameworkAdapter = getattr(found, name)(type_converters)
    return adapter


def framework_of(agent: object) -> str | None:
    """The framework that an agent belongs to, by the package of its class or of a base; None if it is unknown."""
    packages = (base.__module__.partition(".")[0] for base in type(agent).__mro__)
    return next((AGENT_PACKAGES[package] for package in packages if package in AGENT_PACKAGES), None)
