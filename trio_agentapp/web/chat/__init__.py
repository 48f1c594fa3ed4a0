"""The chat page at `/chat`. It has no build step, and uses only public routes."""

from .page import ChatPage

__all__ = ["ChatPage"]
