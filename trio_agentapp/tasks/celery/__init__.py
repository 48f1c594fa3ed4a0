"""Tasks that Celery workers execute (the extra `celery`).

application  Celery's own application        queue     giving out tasks, asking for them, stopping them
records      what Redis remembers of them    publisher messages to the broker; sweeper: those that got lost
work         executing one, in a worker      agent     runs of the query handler, given out like tasks
lifeline     how tasks learn of a shutdown   worker    `run_worker`; embedded: a worker as a subprocess
"""

from .agent import AgentBody, CeleryBackground, ask_agent
from .application import add_function, celery_name, new_celery, on_logging_set_up
from .embedded import EmbeddedWorker
from .lifeline import Lifeline
from .queue import CeleryTaskQueue
from .work import Work
from .worker import run_worker

__all__ = [
    "AgentBody",
    "CeleryBackground",
    "CeleryTaskQueue",
    "EmbeddedWorker",
    "Lifeline",
    "Work",
    "add_function",
    "ask_agent",
    "celery_name",
    "new_celery",
    "on_logging_set_up",
    "run_worker",
]
