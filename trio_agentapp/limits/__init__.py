"""How many requests and frames each principal may send: in this process, or over Redis for all nodes."""

from .rates import BURST_SECONDS, Rates

__all__ = ["BURST_SECONDS", "Rates"]
