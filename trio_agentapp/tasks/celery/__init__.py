"""Tasks that Celery workers execute (the extra `celery`).

application  Celery's own application            queue      submits, looks up and cancels tasks
records      the records of tasks in Redis       publisher  sends messages to the broker
sweeper      sends lost messages again           work       executes one task in a worker
agent        runs of the query handler as tasks  lifeline   stops a worker's tasks at its shutdown
worker       `run_worker`                        embedded   a worker as a subprocess of the app
"""

from .agent import AgentBody, ask_agent, submit_run
from .application import add_function, celery_name, new_celery, on_logging_set_up, on_process_end
from .embedded import EmbeddedWorker
from .lifeline import Lifeline
from .queue import CeleryTaskQueue
from .work import Work
from .worker import run_worker

__all__ = [
    "AgentBody",
    "CeleryTaskQueue",
    "EmbeddedWorker",
    "Lifeline",
    "Work",
    "add_function",
    "ask_agent",
    "celery_name",
    "new_celery",
    "on_logging_set_up",
    "on_process_end",
    "submit_run",
    "run_worker",
]
