"""The routes of runs, sessions and tasks, and the check of who may use them."""

from .identity import Principal

__all__ = ["Principal"]
