"""The run core: a handler's life from claim to terminal event. Trio only: no web server, no Redis.

To read it in one sitting: `run` (what a handler holds), `cleanup` (what may await after a stop), `handler` (the
user's function), `driver` (executes it, and says how it ended), `log` and `stream` (its events and their readers),
`registry` (owns all runs), `keeper` and `line` (their leases, and waiting for one), `conclusion`, `ending`,
`stopping`, `drain`, `ticker` (how ends are written and look, who asks for them, and when), `viewing` (runs of other
nodes, and runs that are over).
"""

from .cleanup import Cleanup, CleanupScope
from .drain import drain
from .driver import Driven, drive
from .handler import Handler, HandlerKind
from .log import EventLog
from .registry import RegistryStatistics, RunRegistry
from .run import OnDisconnect, Run, StopFlag, current_run, shielded_write
from .stopping import stop_run
from .stream import Delivery, Gap, Subscriber
from .viewing import Viewing

__all__ = [
    "Cleanup",
    "CleanupScope",
    "Delivery",
    "Driven",
    "EventLog",
    "Gap",
    "Handler",
    "HandlerKind",
    "OnDisconnect",
    "RegistryStatistics",
    "Run",
    "RunRegistry",
    "StopFlag",
    "Subscriber",
    "Viewing",
    "current_run",
    "drain",
    "drive",
    "shielded_write",
    "stop_run",
]
