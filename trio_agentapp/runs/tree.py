"""The tree of a run: its tasks and nurseries, where each task waits, and since when.

Trio keeps the parents and children of tasks, and the frames of each waiting task can be read. So the tree costs
nothing until it is asked for. Trio counts the turns of each task, but does not record when they were, and recording
that would cost time for every event. So a wait is measured from the first tree that is asked for during it.
"""

from __future__ import annotations

from typing import TypedDict
from weakref import WeakKeyDictionary

import trio

from .run import Run

__all__ = ["MAX_TASKS", "TaskNode", "tree_of"]

MAX_TASKS = 500
"""Tasks shown of one run."""

_Turns = WeakKeyDictionary[trio.lowlevel.Task, tuple[int, float]]

_seen: _Turns = WeakKeyDictionary()
"""For each task that was shown: its number of turns, and when that number was first seen, on Trio's clock."""

_HERE = __name__.partition(".")[0]


class TaskNode(TypedDict):
    """One task.

    `where`: the function of the user's code in which it waits, with its line; "" if it is in none. `waits_s`: the
    seconds for which it has waited there, counted from the first tree that was asked for during the wait.
    """

    name: str
    where: str
    waits_s: float
    children: list[TaskNode]


def tree_of(run: Run) -> TaskNode | None:
    """Return the handler's tasks, as a tree whose root is the run; None: no task of the run is executed.

    At most `MAX_TASKS` tasks are named; `name` of the last one says how many more there are.
    """
    nursery = run.children
    if nursery is None:
        return None
    left = [MAX_TASKS]
    return {"name": f"run {run.run_id}", "where": "", "waits_s": 0.0, "children": _tasks_of(nursery, left)}


def _tasks_of(nursery: trio.Nursery, left: list[int]) -> list[TaskNode]:
    shown: list[TaskNode] = []
    tasks = sorted(nursery.child_tasks, key=lambda task: task.name)
    for place, task in enumerate(tasks):
        if not left[0]:
            shown.append({"name": f"{len(tasks) - place} more", "where": "", "waits_s": 0.0, "children": []})
            break
        left[0] -= 1
        inner = [child for nested in task.child_nurseries for child in _tasks_of(nested, left)]
        shown.append(
            {
                "name": task.name.rpartition("<locals>.")[2].rpartition(".")[2],
                "where": _where(task),
                "waits_s": _waits(task),
                "children": inner,
            }
        )
    return shown


def _waits(task: trio.lowlevel.Task) -> float:
    """Return the seconds since this task was first seen with its present number of turns."""
    now = trio.current_time()
    turns, since = _seen.get(task, (-1, now))
    if turns != task._schedule_points:
        since = now
        _seen[task] = (task._schedule_points, now)
    return round(now - since, 3)


def _where(task: trio.lowlevel.Task) -> str:
    """Return function and line of the innermost frame of the user's code; "" if there is none."""
    found = ""
    for frame, line in task.iter_await_frames():
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in (_HERE, "trio", "outcome"):
            # Leave out the enclosing functions (`outer.<locals>.`), which make the name long.
            found = f"{frame.f_code.co_qualname.rpartition('<locals>.')[2]}:{line}"
    return found
