"""Other protocols over the runs of an app: each is a `ProtocolAdapter`, so a stop reaches every run by every way.

Names are looked up when they are asked for: an app loads the protocols that it serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names

if TYPE_CHECKING:
    from .a2a import A2AAdapter, AgentCardWithRuntimeConfig, a2a_reply
    from .a2a_client import A2AClient
    from .agui import AGUIAdapter, AGUIAdaptorConfig
    from .aisdk import AISDKAdapter
    from .completions.adapter import CompletionsAdapter
    from .responses.adapter import ResponsesAdapter

_HOMES: dict[str, str] = {
    "A2AAdapter": "a2a",
    "A2AClient": "a2a_client",
    "AGUIAdapter": "agui",
    "AGUIAdaptorConfig": "agui",
    "AISDKAdapter": "aisdk",
    "AgentCardWithRuntimeConfig": "a2a",
    "CompletionsAdapter": "completions.adapter",
    "ResponsesAdapter": "responses.adapter",
    "a2a_reply": "a2a",
}
"""The module of each public name."""

__all__ = [
    "A2AAdapter",
    "A2AClient",
    "AGUIAdapter",
    "AGUIAdaptorConfig",
    "AISDKAdapter",
    "AgentCardWithRuntimeConfig",
    "CompletionsAdapter",
    "ResponsesAdapter",
    "a2a_reply",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
