"""A client for agents that speak A2A, for Trio. Specifications: A2A 1.0.1 and 0.3.0."""

from .client import A2AClient
from .stream import A2AStream
from .task import (
    A2AEvent,
    A2AReply,
    A2ATask,
    Artifact,
    ArtifactUpdate,
    MessageReply,
    StatusUpdate,
    TaskSnapshot,
    TaskState,
    TaskStatus,
)

__all__ = [
    "A2AClient",
    "A2AEvent",
    "A2AReply",
    "A2AStream",
    "A2ATask",
    "Artifact",
    "ArtifactUpdate",
    "MessageReply",
    "StatusUpdate",
    "TaskSnapshot",
    "TaskState",
    "TaskStatus",
]
