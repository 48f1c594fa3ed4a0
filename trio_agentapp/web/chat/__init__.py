"""The chat page at `/chat`: without a build step, and by routes that any other page could use."""

from .page import ChatPage

__all__ = ["ChatPage"]
