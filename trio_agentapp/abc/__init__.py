"""The contracts of backends and stores.

`trio_agentapp.testing` checks whether any implementation, also a user's own, fulfils its contract.
"""

from .capabilities import Capability, IdempotencyKeys, QuestionBoard, RunInbox, RunListing, RunWakeups, watching
from .deployment import DeployManager
from .events import EventSink, EventStore, Extent
from .instruments import ClaimResult, Instrument, NodeFigures, RunEnd, RunFacts, TaskFacts
from .interrupt_answers import (
    MAX_INPUT,
    MAX_QUEUED,
    Busy,
    Claim,
    Ended,
    Granted,
    InputAnswer,
    InputSignal,
    Queued,
    QueueIsFull,
    Renewal,
    Resync,
    Signal,
    StopAnswer,
    StopOutcome,
    StopSignal,
    Taken,
)
from .interrupts import BaseInterruptBackend
from .lease import Lease, Place
from .registries import A2ATransportsProperties, AgentCard, AgentDirectory, AgentRegistry, RegisteredAgent
from .stores import SessionStore, StateStore
from .tasks import TaskQueue

__all__ = [
    "MAX_INPUT",
    "MAX_QUEUED",
    "A2ATransportsProperties",
    "AgentCard",
    "AgentDirectory",
    "AgentRegistry",
    "BaseInterruptBackend",
    "Busy",
    "Capability",
    "Claim",
    "ClaimResult",
    "DeployManager",
    "Ended",
    "EventSink",
    "EventStore",
    "Extent",
    "Granted",
    "IdempotencyKeys",
    "InputAnswer",
    "InputSignal",
    "Instrument",
    "Lease",
    "NodeFigures",
    "Place",
    "QueueIsFull",
    "Queued",
    "RegisteredAgent",
    "Renewal",
    "Resync",
    "QuestionBoard",
    "RunEnd",
    "RunFacts",
    "TaskFacts",
    "RunInbox",
    "RunListing",
    "RunWakeups",
    "Signal",
    "SessionStore",
    "StateStore",
    "StopAnswer",
    "StopOutcome",
    "StopSignal",
    "Taken",
    "TaskQueue",
    "watching",
]
