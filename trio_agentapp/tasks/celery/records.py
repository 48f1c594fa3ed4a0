"""The records of tasks in Redis.

A record, and not Celery, has the state of a task: Celery cannot tell an unknown task from a waiting one.

A worker claims the record before it executes the task. Only one claim succeeds, however often the message is
delivered. A claim is a lease that the worker renews. The answer to a renewal says whether the task was cancelled.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import attrs

from ...protocol.tasks import TASK_ENDS, TaskCause, TaskError, TaskRecord, TaskState
from ...redis import RedisClient, Script
from ..table import RETENTION
from ..task import TaskEnd

__all__ = ["Answer", "TaskRecords"]


@attrs.frozen
class Answer:
    """The answer to an operation: its result, such as "claimed", and the record after the operation."""

    word: str
    record: TaskRecord | None


class TaskRecords:
    """Reads and writes the records. The caller must run `client.serve`.

    Args:
        prefix: of all keys.
        lease: seconds for which a worker counts as alive after its last renewal.

    Every call raises what `RedisClient.script` does, and may be repeated.
    """

    def __init__(self, client: RedisClient, *, prefix: str, lease: float, retention: float = RETENTION) -> None:
        self._client = client
        self._prefix = prefix
        self._waiting = f"{prefix}:tasks:waiting"
        self._fixed = (int(retention * 1000), int(lease * 1000))
        self._script = Script((files(__package__) / "record.lua").read_text())
        self._due = Script((files(__package__) / "due.lua").read_text())

    async def give(self, task_id: str, name: str, user_id: str | None, message: bytes) -> Answer:
        """Record a task that waits for a worker. Return "given", or the state of the task if its id is recorded."""
        return await self._call(task_id, "give", name, user_id or "", _flag(user_id), message)

    async def due(self, age: float, count: int) -> list[str]:
        """Return tasks that have waited for `age` seconds, since they were given or were last returned here."""
        ids = await self._client.script(self._due, [self._waiting], [int(age * 1000), count])
        return [task_id.decode() for task_id in ids]

    async def message(self, task_id: str) -> bytes | None:
        """Return the message of a task; None if the task is not waiting."""
        fields = (await self._ask(task_id, "status"))[1]
        return fields.get("sent")

    async def withdraw(self, task_id: str) -> None:
        """Delete the record of a waiting task. If its message was sent, workers ignore the message."""
        await self._call(task_id, "withdraw")

    async def claim(self, task_id: str, worker: str) -> Answer:
        """Claim a task for execution. The answer is "claimed", "unknown", or the state of the task."""
        return await self._call(task_id, "claim", worker)

    async def beat(self, task_id: str, worker: str) -> str:
        """Renew the claim. Returns "ok", "stop" (renewed, and the task was cancelled) or "lost" (not renewed)."""
        return (await self._call(task_id, "beat", worker)).word

    async def finish(self, task_id: str, worker: str, end: TaskEnd) -> Answer:
        """Write the end of a task, if the claim is still valid."""
        code, message = ("", "") if end.error is None else (end.error.code, end.error.message)
        return await self._call(
            task_id, "finish", worker, end.state.value, _flag(end.result), end.result or b"", code, message
        )

    async def cancel(self, task_id: str) -> TaskRecord | None:
        """Cancel a task. A waiting task never begins. A running task is stopped at its worker's next renewal."""
        return (await self._call(task_id, "cancel")).record

    async def status(self, task_id: str) -> TaskRecord | None:
        return (await self._call(task_id, "status")).record

    async def _call(self, task_id: str, operation: str, *args: str | bytes) -> Answer:
        word, fields = await self._ask(task_id, operation, *args)
        return Answer(word, _record_of(task_id, fields) if fields else None)

    async def _ask(self, task_id: str, operation: str, *args: str | bytes) -> tuple[str, dict[str, bytes]]:
        keys = [f"{self._prefix}:task:{task_id}", self._waiting]
        word, *rest = await self._client.script(self._script, keys, [operation, task_id, *self._fixed, *args])
        return word.decode(), dict(zip(map(bytes.decode, rest[::2]), rest[1::2], strict=True))


def _flag(value: object) -> str:
    return "0" if value is None else "1"


def _record_of(task_id: str, fields: dict[str, bytes]) -> TaskRecord:
    def text(name: str) -> str | None:
        return None if (value := fields.get(name)) is None else value.decode()

    def seconds(name: str) -> float | None:
        return None if (value := fields.get(name)) is None else int(value) / 1000

    error: Any = None
    if code := text("code"):
        error = TaskError(code, text("message") or _words(code))
    return TaskRecord(
        task_id=task_id,
        name=text("name") or "",
        state=TaskState(text("state") or TaskState.PENDING),
        user_id=text("user"),
        cancel_requested="cancel" in fields,
        created_at=seconds("created") or 0.0,
        started_at=seconds("started"),
        ended_at=seconds("ended"),
        result=fields.get("result"),
        error=error,
    )


def _words(code: str) -> str:
    return TASK_ENDS[TaskCause(code)][1] if code in list(TaskCause) else ""
