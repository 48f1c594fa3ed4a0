"""A2A, the protocol in which agents call each other: versions 1.0 and 0.3 over the runs of an app.

adapter     the routes, the card, and what the bindings share     jsonrpc, rest   the bindings
operations  what clients can do                                   task            a task as a fold over events
stream      a task as a stream                                    versions        how 1.0 and 0.3 write objects
params      the parameters of methods (shapes: their tables)      parts           parts and content
card        the agent card, and config: AgentCardWithRuntimeConfig
push        push notifications    memory, silence   bounded state of this node    faults, guard   errors
"""

from .adapter import A2AAdapter
from .config import AgentCardWithRuntimeConfig
from .reply import a2a_reply

__all__ = ["A2AAdapter", "AgentCardWithRuntimeConfig", "a2a_reply"]
