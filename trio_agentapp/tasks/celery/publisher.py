"""Sends messages to the broker. Celery's client blocks, so it is used in threads and with a timeout."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import trio

from ...errors import BackendUnavailable

__all__ = ["PUBLISH_TIMEOUT", "Publisher"]

logger = logging.getLogger("trio_agentapp.tasks")

T = TypeVar("T")

PUBLISH_TIMEOUT = 6.0
"""Seconds until a request is refused. A thread that hangs longer is ended by its socket's timeout."""

SOCKET_TIMEOUT = 2.0

MAX_THREADS = 8

TRACE_HEADER = "trace_context"
"""The message header that has the trace of the request."""

RETRY_AFTER = 2.0


class Publisher:
    """Sends messages of one Celery application, over kept connections: at most one per thread."""

    def __init__(self, celery: Any) -> None:
        self._celery = celery
        self._threads = trio.CapacityLimiter(MAX_THREADS)
        # Several threads append and pop; both are atomic on a deque.
        self._idle: deque[Any] = deque()

    async def send(
        self,
        name: str,
        args: list[object],
        *,
        task_id: str,
        queue: str,
        expires: float,
        time_limit: float | None,
        trace: dict[str, str] | None = None,
    ) -> None:
        """Send one message. `trace`: the headers of the trace that its task continues.

        Raises:
            BackendUnavailable: the broker did not confirm the message in time. It may still have the message; then
                the task's record decides whether the task is executed.
        """
        options = {
            "task_id": task_id,
            "queue": queue,
            "expires": expires,
            "time_limit": time_limit,
            "headers": {TRACE_HEADER: trace} if trace else None,
        }
        await self._in_thread(partial(self._publish, name=name, args=args, options=options))

    async def count(self, queue: str) -> int:
        """Count the messages in a queue. Raises BackendUnavailable."""
        return await self._in_thread(partial(self._count, queue=queue))

    async def _in_thread(self, use: Callable[[Any], T]) -> T:
        try:
            with trio.fail_after(PUBLISH_TIMEOUT):
                return await trio.to_thread.run_sync(
                    self._with_connection, use, abandon_on_cancel=True, limiter=self._threads
                )
        except Exception as exc:
            # kombu raises errors of its transports, which have no common base class.
            logger.warning("the task broker does not answer: %s: %s", type(exc).__name__, exc)
            raise BackendUnavailable(
                "The task broker does not answer; the task will not be executed.", retry_after=RETRY_AFTER
            ) from exc

    async def aclose(self) -> None:
        """Close the idle connections."""
        with trio.move_on_after(SOCKET_TIMEOUT, shield=True):
            await trio.to_thread.run_sync(self._close_idle, abandon_on_cancel=True, limiter=self._threads)

    def _with_connection(self, use: Callable[[Any], T]) -> T:
        try:
            kept = self._idle.pop()
        except IndexError:
            kept = None
        if kept is not None:
            try:
                return self._use(kept, use)
            except Exception as exc:
                # The broker may have closed the connection. If it has the message, the task is still executed once.
                logger.debug("a kept connection to the broker failed: %s", exc)
        return self._use(self._connect(), use)

    def _use(self, connection: Any, use: Callable[[Any], T]) -> T:
        try:
            result = use(connection)
        except BaseException:
            _close(connection)
            raise
        self._idle.append(connection)
        return result

    def _connect(self) -> Any:
        connection = self._celery.connection_for_write(connect_timeout=SOCKET_TIMEOUT)
        connection.transport_options = {
            **(connection.transport_options or {}),
            "socket_timeout": SOCKET_TIMEOUT,
            "socket_connect_timeout": SOCKET_TIMEOUT,
            "max_retries": 1,
            "connect_retries_timeout": SOCKET_TIMEOUT,
        }
        return connection

    def _publish(self, connection: Any, *, name: str, args: list[object], options: dict[str, Any]) -> None:
        producer = self._celery.amqp.Producer(connection, auto_declare=False)
        self._celery.send_task(name, args=args, producer=producer, retry=False, ignore_result=True, **options)

    def _count(self, connection: Any, *, queue: str) -> int:
        try:
            declared = connection.default_channel.queue_declare(queue=queue, passive=True)
        except connection.channel_errors:
            # With Redis as the broker, an empty queue does not exist.
            return 0
        return int(declared.message_count)

    def _close_idle(self) -> None:
        while self._idle:
            _close(self._idle.pop())


def _close(connection: Any) -> None:
    try:
        connection.release()
    except Exception as exc:
        logger.debug("closing a connection to the broker failed: %s", exc)
