"""Limits the requests and frames of each principal: in this process, or over Redis for all nodes."""

from .rates import BURST_SECONDS, DEFAULT_PER_SECOND, Rates, rate_limit

__all__ = ["BURST_SECONDS", "DEFAULT_PER_SECOND", "Rates", "rate_limit"]
