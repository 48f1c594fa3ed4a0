"""Sends lost messages again.

If a worker dies with a message, or the broker restarts without its data, a task would wait forever. Such a task is
recognised by a record that is waiting while the queue of the task is empty.
"""

from __future__ import annotations

import logging
from typing import Any

import orjson
import trio
from redis.exceptions import RedisError

from ...errors import BackendUnavailable
from ...protocol.payload import json_bytes
from ...redis import LinkError
from .publisher import Publisher
from .records import TaskRecords

__all__ = ["RESEND_AFTER", "encode_message", "send_message", "sweep_forever"]

logger = logging.getLogger("trio_agentapp.tasks")

SWEEP_EVERY = 1.0

RESEND_AFTER = 5.0
"""Seconds for which a task waits, with its queue empty, until its message is sent again. A claim takes less time.

A task whose message is delivered twice is executed once.
"""

AT_ONCE = 100
"""Limit of the tasks that one sweep checks."""


def encode_message(name: str, args: list[object], **options: Any) -> bytes:
    """Encode the arguments of `Publisher.send`, to be kept in the record until the task begins."""
    return json_bytes({"name": name, "args": args, **options})


async def send_message(publisher: Publisher, task_id: str, message: bytes) -> None:
    """Send the message of a task. Raises BackendUnavailable."""
    await publisher.send(task_id=task_id, **orjson.loads(message))


async def sweep_forever(records: TaskRecords, publisher: Publisher) -> None:
    """Send lost messages again until cancelled. Any number of nodes may do so."""
    while True:
        await trio.sleep(SWEEP_EVERY)
        try:
            await _sweep(records, publisher)
        except (LinkError, RedisError, BackendUnavailable) as exc:
            logger.debug("waiting tasks could not be checked: %s", exc)


async def _sweep(records: TaskRecords, publisher: Publisher) -> None:
    lengths: dict[str, int] = {}
    for task_id in await records.due(RESEND_AFTER, AT_ONCE):
        message = await records.message(task_id)
        if message is None:
            continue
        queue = orjson.loads(message)["queue"]
        if queue not in lengths:
            lengths[queue] = await publisher.count(queue)
        if lengths[queue] == 0:
            logger.warning("task %s waits, and queue %r is empty: its message is sent again", task_id, queue)
            await send_message(publisher, task_id, message)
