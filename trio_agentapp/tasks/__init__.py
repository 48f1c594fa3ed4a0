"""Tasks: functions that are called now and whose results are read later, in this process or in Celery workers.

function    the user's function                    task      one call of it, from its start to its end
table       task records, within bounds            local     the queue of this process
background  background runs of the query handler   celery    the queue of many processes
"""

from .background import BackgroundRuns
from .function import NO_BODY, TaskFunction
from .local import LocalTaskQueue
from .task import Task, current_task

__all__ = ["NO_BODY", "BackgroundRuns", "LocalTaskQueue", "Task", "TaskFunction", "current_task"]
