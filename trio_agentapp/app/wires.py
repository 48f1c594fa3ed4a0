"""The protocols that an app speaks beside its own."""

from __future__ import annotations

from collections.abc import Sequence

from ..web.protocol_adapter import ProtocolAdapter
from .settings import Settings

__all__ = ["adapters_of"]


def adapters_of(settings: Settings) -> Sequence[ProtocolAdapter]:
    """Return the adapters that were given, else one for each protocol that is built in."""
    if settings.protocol_adapters is not None:
        return tuple(settings.protocol_adapters)
    from ..wires import AGUIAdapter, AISDKAdapter

    return (AGUIAdapter(config=settings.agui_config), AISDKAdapter())
