"""The app's side of the Celery task queue: keeps records in Redis, and sends messages to the broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
from redis.exceptions import RedisError

from ...abc import TaskQueue
from ...errors import Draining, ValidationError
from ...nursery import nursery_around
from ...protocol.ids import new_run_id
from ...protocol.tasks import TaskRecord
from ...protocol.trace_context import trace_headers
from ...redis import LinkError, RedisClient, unavailable_on_error
from ...redis.serving import serving_in_background
from ..function import NO_BODY, TaskFunction
from ..table import RETENTION
from .application import celery_name
from .publisher import Publisher
from .records import TaskRecords
from .sweeper import encode_message, send_message, sweep_forever

__all__ = ["CeleryTaskQueue"]

RETRY_AFTER = 2.0

KILL_MARGIN = 10.0
"""Seconds beyond its timeout and cleanup budget after which Celery kills a task's process."""


class CeleryTaskQueue(TaskQueue):
    """Tasks that Celery workers execute.

    It can be opened while Redis or the broker does not answer. Requests are refused until both answer.

    Args:
        celery: the application, in which every function of `functions` is registered.
        redis_url: where records are kept.
        lease: seconds for which a worker counts as alive after its last renewal.
    """

    def __init__(
        self,
        celery: Any,
        functions: Mapping[str, TaskFunction],
        *,
        redis_url: str,
        prefix: str,
        lease: float,
        call_timeout: float,
        cleanup_budget: float,
    ) -> None:
        self._celery = celery
        self._functions = functions
        self._redis_url = redis_url
        self._prefix = prefix
        self._lease = lease
        self._call_timeout = call_timeout
        self._cleanup_budget = cleanup_budget
        self._publisher = Publisher(celery)
        self._records: TaskRecords | None = None
        self._draining = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See `TaskQueue.open`. Tasks are not executed in this process."""
        client = RedisClient(self._redis_url, call_timeout=self._call_timeout, start_timeout=None)
        records = TaskRecords(client, prefix=self._prefix, lease=self._lease)
        async with serving_in_background(client.serve), nursery_around() as nursery:
            self._draining = False
            self._records = records
            nursery.start_soon(sweep_forever, records, self._publisher)
            try:
                yield
            finally:
                self._records = None
                nursery.cancel_scope.cancel(reason="the app is closed")
        await self._publisher.aclose()

    async def submit(self, name: str, body: object, *, user_id: str | None = None) -> TaskRecord:
        self._functions[name].bind(body)
        return await self.submit_as(new_run_id(), name, body, user_id=user_id)

    async def submit_as(self, task_id: str, name: str, body: object, *, user_id: str | None) -> TaskRecord:
        """`submit` with a given id. If the same user has submitted a task with this id, return that.

        Raises also:
            ValidationError: another task has this id.
        """
        function = self._functions[name]
        records = self._open_records()
        if self._draining:
            raise Draining
        limit = None if function.timeout is None else function.timeout + self._cleanup_budget + KILL_MARGIN
        message = encode_message(
            celery_name(self._prefix, name),
            [] if body is NO_BODY else [body],
            queue=function.queue,
            expires=RETENTION,
            time_limit=limit,
            trace=trace_headers(),
        )
        with unavailable_on_error(
            "The task could not be recorded, and will not be executed.", retry_after=RETRY_AFTER
        ):
            answer = await records.give(task_id, name, user_id, message)
        record = answer.record
        assert record is not None  # noqa: S101  it was just written
        if answer.word != "given":
            if record.name == name and record.user_id == user_id:
                return record
            raise ValidationError([("$.id", "another task has this id")])
        try:
            await send_message(self._publisher, task_id, message)
        except BaseException:
            # If the client gets no response, it does not know the task's id and could not stop the task.
            await self._withdraw(records, task_id)
            raise
        return record

    async def status(self, task_id: str) -> TaskRecord | None:
        with unavailable_on_error("The task could not be looked up.", retry_after=RETRY_AFTER):
            return await self._open_records().status(task_id)

    async def cancel(self, task_id: str) -> TaskRecord | None:
        with unavailable_on_error(
            "The stop could not be delivered; it is safe to repeat.", retry_after=RETRY_AFTER
        ):
            return await self._open_records().cancel(task_id)

    async def drain(self, timeout: float, hurry: trio.Event | None = None) -> None:  # noqa: ARG002
        """See `TaskQueue.drain`. It does not wait, because other processes execute the tasks."""
        self._draining = True
        await trio.lowlevel.checkpoint()

    def _open_records(self) -> TaskRecords:
        if self._records is None:
            raise Draining
        return self._records

    async def _withdraw(self, records: TaskRecords, task_id: str) -> None:
        # If Redis does not answer, the record expires later.
        with trio.move_on_after(self._call_timeout, shield=True), suppress(LinkError, RedisError):
            await records.withdraw(task_id)
