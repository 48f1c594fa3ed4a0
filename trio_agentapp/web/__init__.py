"""The web: requests in, streams out, over Quart-Trio and Hypercorn."""

from .identity import Principal

__all__ = ["Principal"]
