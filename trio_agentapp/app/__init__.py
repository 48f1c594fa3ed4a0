"""The whole: AgentApp and its wiring."""

from .application import AgentApp
from .settings import Settings

__all__ = ["AgentApp", "Settings"]
