"""The contracts: what a backend or a store must do, whoever wrote it.

`trio_agentapp.testing` puts any implementation, also a user's own, through the questions that follow from these
texts.
"""

from .deployment import DeployManager
from .events import EventSink, EventStore, Extent
from .interrupts import (
    MAX_INPUT,
    MAX_QUEUED,
    BaseInterruptBackend,
    Busy,
    Claim,
    Ended,
    Granted,
    InputAnswer,
    InputSignal,
    Lease,
    Place,
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
from .stores import SessionStore, StateStore
from .tasks import TaskQueue

__all__ = [
    "MAX_INPUT",
    "MAX_QUEUED",
    "BaseInterruptBackend",
    "Busy",
    "Claim",
    "DeployManager",
    "Ended",
    "EventSink",
    "EventStore",
    "Extent",
    "Granted",
    "InputAnswer",
    "InputSignal",
    "Lease",
    "Place",
    "QueueIsFull",
    "Queued",
    "Renewal",
    "Resync",
    "Signal",
    "SessionStore",
    "StateStore",
    "StopAnswer",
    "StopOutcome",
    "StopSignal",
    "Taken",
    "TaskQueue",
]
