"""The routes of runs, sessions and tasks, and who may use them."""

from .identity import Principal

__all__ = ["Principal"]
