"""A Trio-native runtime that serves AI agents. Begin with `from trio_agentapp import AgentApp`.

Layers. A package may import those above it in this list, never those below; those of one row do not import each
other:

    errors                                      the error tree
    protocol                                    types and JSON of what crosses the network; no I/O, no Trio
    nursery, restarts                           a nursery that does not change exceptions of its block; restarts of
                                                subprocesses
    abc                                         contracts of backends, stores and adapters
    runs                                        a run from its claim to its terminal event; Trio only
    redis                                       the Trio link to a Redis server
    interrupts, events, stores, tasks,
    frameworks, registries, telemetry           implementations of the contracts
    server                                      the process: server loop, workers, connections
    endpoints                                   functions as routes, and the OpenAPI document
    web                                         routes of runs, sessions and tasks
    wires, auth                                 other protocols over the same runs; hooks that identify clients
    app                                         AgentApp, which knows all of them
    client, deploy, agents                      AgentClient; deployment into a process of its own; a small agent
    cli                                         the command line
    testing                                     what users test their own parts with

Names are looked up when they are asked for, so that `import trio_agentapp.runs` loads no web server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .abc import BaseInterruptBackend, SessionStore, StateStore
    from .app import AgentApp
    from .client import AgentClient
    from .deploy import LocalDeployManager
    from .errors import AgentAppError, Rejected
    from .interrupts import LocalInterruptBackend
    from .protocol import (
        AgentRequest,
        AudioContent,
        CancelAfter,
        DataContent,
        FileContent,
        ImageContent,
        Message,
        RefusalContent,
        TextContent,
        VideoContent,
    )
    from .protocol.lifecycle import RunState, StopReceipt
    from .protocol.timings import Timings
    from .runs import Run
    from .runs.questions import Answer
    from .tasks import current_task
    from .web import Principal
    from .web.protocol_adapter import ProtocolAdapter

__all__ = [
    "AgentApp",
    "AgentClient",
    "AgentRequest",
    "Run",
    "current_task",
    "Message",
    "TextContent",
    "DataContent",
    "ImageContent",
    "AudioContent",
    "VideoContent",
    "FileContent",
    "RefusalContent",
    "CancelAfter",
    "Timings",
    "StopReceipt",
    "RunState",
    "Principal",
    "ProtocolAdapter",
    "Answer",
    "Rejected",
    "BaseInterruptBackend",
    "LocalInterruptBackend",
    "StateStore",
    "SessionStore",
    "LocalDeployManager",
    "AgentAppError",
]

_HOMES = {
    "AgentApp": "app",
    "AgentAppError": "errors",
    "AgentClient": "client",
    "BaseInterruptBackend": "abc",
    "LocalDeployManager": "deploy",
    "LocalInterruptBackend": "interrupts",
    "Answer": "runs.questions",
    "Principal": "web",
    "ProtocolAdapter": "web.protocol_adapter",
    "Rejected": "errors",
    "Run": "runs",
    "RunState": "protocol.lifecycle",
    "SessionStore": "abc",
    "StateStore": "abc",
    "StopReceipt": "protocol.lifecycle",
    "Timings": "protocol.timings",
    "current_task": "tasks",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES.get(name, 'protocol')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
