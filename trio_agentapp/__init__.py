"""A Trio-native runtime that serves AI agents. Begin with `from trio_agentapp import AgentApp`.

Layers. A package may import those above it in this list, never those below; those of one row do not import each
other:

    lazy_names                                  names that are imported when they are asked for
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

Names are imported when they are first used, so that `import trio_agentapp.runs` loads no web server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy_names import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, {name: _HOMES.get(name, "protocol") for name in __all__})
