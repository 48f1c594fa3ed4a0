"""Tasks: functions that are called now and whose results are read later, in this process or by Celery.

function   the user's function, whatever its shape           task       one call of it, from its start to its end
table      what is remembered of tasks, within bounds        local      the queue of this process
background runs of the query handler that nobody watches     celery     the queue of many processes
"""

from .background import BackgroundRuns
from .function import NO_BODY, TaskFunction
from .local import LocalTaskQueue
from .task import Task, current_task

__all__ = ["NO_BODY", "BackgroundRuns", "LocalTaskQueue", "Task", "TaskFunction", "current_task"]
