"""AgentApp, its settings, and the wiring of all other packages."""

from .application import AgentApp
from .settings import Settings

__all__ = ["AgentApp", "Settings"]
