"""The run core: executes agent functions, from the claim of a session to the terminal event.

It needs Trio only, no web server and no Redis. Read it in this order:

task             one run from claim to end: the story that the other modules serve
run              what a handler gets as `run`               runner           a request becomes a run
registry         the runs of this node and their nursery    services         what they need to their end
stoppable        the cancel scope of a handler              cleanup          awaits after a stop
handler          the user's function                        generators       drives what it yields
driver           executes the handler                       containment      keeps its faults inside
ledger           closes what user code leaves open          failures         exceptions of user code
asyncio_source   warns of asyncio's cancellation
session_queue    waits for a busy session                   keeper           renews leases, applies stop signals
terminal_events  the last events of a run                   end_writer       records the end in the backend
log              the events of a run                        stream           one reader of a log
viewing          readers of any run, also of other nodes    inbox            messages that other nodes received
stop             stops a run on any node                    drain, grace     ends all runs of a node
ticker           what happens when only time passes         process          subprocesses of a run
question_poster  open questions, for other nodes            questions        what `run.ask` asks
log_fields       run and session in log records
"""

from .cleanup import CleanupScope
from .drain import drain
from .handler import Handler, HandlerKind
from .log import EventLog
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
