"""The agent from the other side: a client for Trio programs. It loads no web server.

To read: `agent_client` (what users call), `stream` (one run's events, resumed), `nodes` (which server is asked, how
often), `feed` with its two ways, `sse` and `websocket`, and `answers` (what servers say, as values and errors).
"""

from .agent_client import AgentClient
from .nodes import Retries
from .stream import EventStream

__all__ = ["AgentClient", "EventStream", "Retries"]
