"""The UI message stream of the AI SDK, which `useChat` reads.

Specification: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol, version v1 of the data stream, `ai` 7.
"""

from .adapter import AISDKAdapter

__all__ = ["AISDKAdapter"]
