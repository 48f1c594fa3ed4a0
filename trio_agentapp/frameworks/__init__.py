"""Handlers written for asyncio and for agent frameworks, run beside Trio on an asyncio loop of their own."""

from .bridge import Bridge, open_bridge

__all__ = ["Bridge", "open_bridge"]
