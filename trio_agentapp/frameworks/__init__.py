"""Runs handlers written for asyncio and for agent frameworks, on an asyncio loop in its own thread.

A `framework=` argument such as `"langgraph"` selects an adapter. The adapter's module is imported on first use, and
needs the framework to be installed.
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
    "pydantic-ai": ("pydantic_ai", "PydanticAIAdapter", "pydantic-ai"),
    "agno": ("agno", "AgnoAdapter", "agno"),
    "openai-agents": ("openai_agents", "OpenAIAgentsAdapter", "openai-agents"),
}
"""For each framework: the module of its adapter, the class of the adapter, and the extra that installs it."""

_SECOND_VERSIONS = {"agentscope": ("agentscope2", "AgentScope2Adapter", "agentscope2")}
"""The adapters for version 2 of a package whose interface has changed. `_ADAPTERS` has the one for version 1."""

AGENT_PACKAGES = {
    "agentscope": "agentscope",
    "autogen_agentchat": "autogen",
    "langgraph": "langgraph",
    "pydantic_ai": "pydantic-ai",
    "agno": "agno",
    "agents.agent": "openai-agents",
}
"""The framework that runs an agent, by the package or module in which the class of the agent is defined."""

FRAMEWORKS = ("text", *_ADAPTERS)
"""The permitted values of `framework=`. "text" means a Trio handler without a framework."""


def adapter_of(framework: str, type_converters: TypeConverters | None = None) -> FrameworkAdapter:
    """The adapter of a framework.

    Raises:
        ValueError: the framework is not known; the message lists those that are.
        ConfigurationError: it is not installed; the message says how to install it.
    """
    if framework not in _ADAPTERS:
        raise ValueError(f"framework {framework!r} is not known; known are {', '.join(FRAMEWORKS)}")
    module, name, extra = _ADAPTERS[framework]
    if framework in _SECOND_VERSIONS and _major_version(framework) == 2:
        module, name, extra = _SECOND_VERSIONS[framework]
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
    """The framework that an agent belongs to, by the module of its class or of a base; None if it is unknown."""
    modules = [f"{base.__module__}." for base in type(agent).__mro__]
    found = (
        framework
        for module in modules
        for package, framework in AGENT_PACKAGES.items()
        if module.startswith(f"{package}.")
    )
    return next(found, None)


def _major_version(package: str) -> int | None:
    from importlib import metadata  # takes 25 ms, which an app without such a framework saves

    try:
        return int(metadata.version(package).partition(".")[0])
    except metadata.PackageNotFoundError:
        return None
