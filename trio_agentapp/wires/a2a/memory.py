"""What this node remembers of tasks beside the runs: messages of clients, times of events, and refused tasks."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from ...protocol.ids import SessionKey

__all__ = ["TaskMemory"]

MAX_TASKS = 10_000
"""Tasks whose first messages are remembered, and sessions of clients without identity. The oldest are forgotten."""

MAX_BYTES = 32 * 1024 * 1024
"""Bytes of these messages as JSON."""

MAX_SEEN = 10_000
"""Events whose times are remembered."""

MAX_REFUSED = 1000
"""Tasks that were refused, and have no run."""


class TaskMemory:
    """Bounded, and of this node only. A task that is not in it has a shorter history."""

    def __init__(self) -> None:
        self._asked: OrderedDict[str, tuple[Sequence[Mapping[str, Any]], int]] = OrderedDict()
        self._bytes = 0
        self._refused: OrderedDict[str, tuple[str | None, dict[str, Any]]] = OrderedDict()
        self._anonymous: OrderedDict[SessionKey, None] = OrderedDict()
        self._seen: OrderedDict[tuple[str, int], float] = OrderedDict()

    def remember(self, task_id: str, message: Mapping[str, Any]) -> None:
        """Keep a message that a client has sent to a task."""
        known, before = self._asked.pop(task_id, ((), 0))
        size = len(orjson.dumps(message))
        self._asked[task_id] = ((*known, message), before + size)
        self._bytes += size
        while len(self._asked) > MAX_TASKS or (self._bytes > MAX_BYTES and len(self._asked) > 1):
            _, (_, gone) = self._asked.popitem(last=False)
            self._bytes -= gone

    def asked(self, task_id: str) -> Sequence[Mapping[str, Any]]:
        return self._asked.get(task_id, ((), 0))[0]

    def seen(self, task_id: str, number: int) -> float:
        """When an event was seen first, in Unix seconds: now, if this is the first call for it."""
        at = self._seen.setdefault((task_id, number), time.time())
        _drop_oldest(self._seen, MAX_SEEN)
        return at

    def refuse(self, user_id: str | None, task: dict[str, Any]) -> None:
        """Keep a task that was refused before it had a run. `user_id`: the authenticated client."""
        self._refused[task["id"]] = (user_id, task)
        _drop_oldest(self._refused, MAX_REFUSED)

    def refused(self, user_id: str | None, task_id: str) -> dict[str, Any] | None:
        owner, task = self._refused.get(task_id, (None, None))
        return task if owner == user_id else None

    def note_anonymous(self, key: SessionKey) -> None:
        """Note a session of a client that was not authenticated, so that its tasks can be listed."""
        self._anonymous[key] = None
        self._anonymous.move_to_end(key)
        _drop_oldest(self._anonymous, MAX_TASKS)

    def anonymous(self) -> Iterator[SessionKey]:
        """These sessions, the latest first."""
        return reversed(tuple(self._anonymous))


def _drop_oldest(kept: OrderedDict[Any, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
