"""A2A, the protocol in which agents call each other: versions 1.0 and 0.3 over the runs of an app.

adapter     the routes, the card, and what the bindings share     jsonrpc, rest   the bindings (call: both)
operations  what clients can do (asked: who calls; incoming: what a message becomes)
listing     the tasks of a client                                 notifications   configs for push notifications
task        a task as a fold over events, with its artifacts (artifact), states (task_states), reader (task_reader)
stream      a task as a stream                                    versions        how 1.0 and 0.3 write objects
params      the parameters of methods (shapes: their tables)      parts, reply    parts and content; a bare message
card        the agent card (card_reader: as given; config: AgentCardWithRuntimeConfig; registration: in registries)
push        reads tasks that have push_configs, and gives their news to each receiver, at a public_address
memory, silence   bounded state of this node                      faults, http    errors, headers
"""

from .adapter import A2AAdapter
from .config import AgentCardWithRuntimeConfig
from .reply import a2a_reply

__all__ = ["A2AAdapter", "AgentCardWithRuntimeConfig", "a2a_reply"]
