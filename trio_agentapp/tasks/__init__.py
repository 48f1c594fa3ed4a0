"""Tasks: calls of functions whose results are read later, executed in this process or by Celery workers.

function    calls the user's function with a JSON body     task    one call, from its start to its end
table       the records of tasks, bounded                   local   the queue of this process
background  runs of the query handler without a watcher    celery  the queue of many processes
"""

from .background import BackgroundRuns
from .function import NO_BODY, TaskFunction
from .local import LocalTaskQueue
from .task import Task, current_task

__all__ = ["NO_BODY", "BackgroundRuns", "LocalTaskQueue", "Task", "TaskFunction", "current_task"]
