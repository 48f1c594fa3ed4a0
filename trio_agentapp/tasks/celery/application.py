"""The Celery application of an app: its queues, and what it is told so that our promises hold."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ...errors import ConfigurationError
from ...redis import RedisURL

try:
    from celery import Celery
    from celery.signals import after_setup_logger, after_setup_task_logger
    from kombu import Exchange, Queue
except ImportError as error:
    raise ConfigurationError(
        "broker_url and backend_url need Celery, which is not installed: pip install 'trio-agentapp[celery]'"
    ) from error

from ..function import TaskFunction
from .failure import TaskFailed

__all__ = ["DEFAULT_QUEUE", "add_function", "celery_name", "new_celery", "on_logging_set_up"]

DEFAULT_QUEUE = "celery"

SOCKET_TIMEOUT = 10.0
"""Seconds for Celery's own sockets; longer than a worker's wait for a message, which is one second."""

CONNECT_TIMEOUT = 3.0


def celery_name(prefix: str, path: str) -> str:
    """What Celery calls the task of a path. The prefix keeps apps apart that share a broker."""
    return f"{prefix}:{path}"


def new_celery(name: str, broker_url: str, backend_url: str) -> Any:
    """A Celery application without tasks of ours yet.

    Raises:
        ConfigurationError: the backend is no Redis, where the records of tasks are kept.
    """
    RedisURL.parse(backend_url)
    celery = Celery(name, broker=broker_url, backend=backend_url, set_as_current=False)
    celery.conf.update(
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_default_queue=DEFAULT_QUEUE,
        task_queues=[_queue(DEFAULT_QUEUE)],
        # A message waits at the broker, not in a worker that is busy.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=broker_url.startswith(("redis", "sentinel", "unix")),
        broker_connection_retry_on_startup=True,
        # What a function prints is its own, and no warning of Celery.
        worker_redirect_stdouts=False,
        broker_transport_options=_bounded(),
        result_backend_transport_options=_bounded(),
        redis_socket_timeout=SOCKET_TIMEOUT,
        redis_socket_connect_timeout=CONNECT_TIMEOUT,
    )
    return celery


def on_logging_set_up(change: Callable[[logging.Logger], None]) -> None:
    """Have a worker of this process call `change` with each logger that Celery has set up."""

    def receive(logger: logging.Logger, **_: object) -> None:
        change(logger)

    for signal in (after_setup_logger, after_setup_task_logger):
        signal.connect(receive, weak=False, dispatch_uid=__name__)


def add_function(celery: Any, name: str, function: TaskFunction, perform: Callable[..., None]) -> None:
    """Register `function` as a task of Celery whose body is `perform(request, *body)`, and its queue."""

    def run(task: Any, *body: object) -> None:
        perform(task.request, *body)

    celery.task(
        run,
        name=name,
        bind=True,
        # It is this app's, not of every Celery application in the process.
        shared=False,
        # The record says whether a message that comes again is to be executed; it never is, once it has begun.
        acks_late=True,
        reject_on_worker_lost=False,
        # Status and result are in the record, and a producer would have to listen for each result of its own.
        ignore_result=True,
        throws=(TaskFailed,),
    )
    add_queue(celery, function.queue)


def add_queue(celery: Any, name: str) -> None:
    """Have workers that are not told otherwise take from this queue, too."""
    queues = celery.conf.task_queues
    if name not in [queue.name for queue in queues]:
        celery.conf.task_queues = [*queues, _queue(name)]


def _queue(name: str) -> Any:
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


def _bounded() -> dict[str, float]:
    return {"socket_timeout": SOCKET_TIMEOUT, "socket_connect_timeout": CONNECT_TIMEOUT}
