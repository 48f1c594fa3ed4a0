"""The run core: executes agent functions, from the claim of a session to the terminal event.

It needs Trio only, no web server and no Redis. Read `task` first: it has the steps of one run, and the other
modules serve it. ARCHITECTURE.md describes each module.
"""

from .cleanup import CleanupScope
from .drain import drain
from .event_log import EventLog
from .handler import Handler, HandlerKind
from .registry import RunRegistry
from .run import Run, current_run, shielded_write
from .stop import stop_run
from .stoppable import StopFlag
from .stream import Delivery, Gap, Subscriber
from .viewing import Viewing

__all__ = [
    "CleanupScope",
    "Delivery",
    "EventLog",
    "Gap",
    "Handler",
    "HandlerKind",
    "Run",
    "RunRegistry",
    "StopFlag",
    "Subscriber",
    "Viewing",
    "current_run",
    "drain",
    "shielded_write",
    "stop_run",
]
