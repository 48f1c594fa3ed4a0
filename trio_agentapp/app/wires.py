"""The protocols of an app beside its own."""

from __future__ import annotations

from collections.abc import Sequence

from ..web.protocol_adapter import ProtocolAdapter
from ..wires.a2a import A2AAdapter
from ..wires.agui import AGUIAdapter
from ..wires.aisdk import AISDKAdapter
from ..wires.completions.adapter import CompletionsAdapter
from ..wires.responses.adapter import ResponsesAdapter
from .settings import Settings

__all__ = ["adapters_of"]


def adapters_of(settings: Settings) -> Sequence[ProtocolAdapter]:
    """Return the adapters of the settings, or one for each built-in protocol if none are set."""
    if settings.protocol_adapters is not None:
        return tuple(settings.protocol_adapters)
    return (
        A2AAdapter(settings.a2a_config, redis_url=settings.interrupt_redis_url, redis_prefix=settings.redis_prefix),
        ResponsesAdapter(),
        CompletionsAdapter(),
        AGUIAdapter(config=settings.agui_config),
        AISDKAdapter(),
    )
