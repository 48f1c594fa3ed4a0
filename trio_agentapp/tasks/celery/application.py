"""The Celery application of an app: its queues and its configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ...errors import ConfigurationError
from ...redis import RedisURL

try:
    from celery import Celery
    from celery.signals import after_setup_logger, after_setup_task_logger, worker_process_shutdown, worker_shutdown
    from kombu import Exchange, Queue
except ImportError as error:
    raise ConfigurationError(
        "broker_url and backend_url need Celery, which is not installed: pip install 'trio-agentapp[celery]'"
    ) from error

from ..function import TaskFunction

__all__ = ["TaskFailed", "add_function", "celery_name", "new_celery", "on_logging_set_up"]

DEFAULT_QUEUE = "celery"

SOCKET_TIMEOUT = 10.0
"""Seconds for Celery's own sockets. It must exceed a worker's wait for a message, which is one second."""

CONNECT_TIMEOUT = 3.0


class TaskFailed(Exception):
    """Raised in a worker, so that Celery counts a task as failed. The record and the log say why."""


def celery_name(prefix: str, path: str) -> str:
    """Return Celery's name for the task of a path. The prefix separates apps that share a broker."""
    return f"{prefix}:{path}"


def new_celery(name: str, broker_url: str, backend_url: str) -> Any:
    """Make a Celery application without tasks.

    Raises:
        ConfigurationError: the backend is not a Redis server. Records of tasks are kept in Redis only.
    """
    RedisURL.parse(backend_url)
    timeouts = {"socket_timeout": SOCKET_TIMEOUT, "socket_connect_timeout": CONNECT_TIMEOUT}
    celery = Celery(name, broker=broker_url, backend=backend_url, set_as_current=False)
    celery.conf.update(
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_default_queue=DEFAULT_QUEUE,
        task_queues=[_queue(DEFAULT_QUEUE)],
        # Prefetch no messages: they wait at the broker, where an idle worker can take them.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=broker_url.startswith(("redis", "sentinel", "unix")),
        broker_connection_retry_on_startup=True,
        # Otherwise Celery logs the standard output of a function as warnings.
        worker_redirect_stdouts=False,
        broker_transport_options=timeouts,
        result_backend_transport_options=timeouts,
        redis_socket_timeout=SOCKET_TIMEOUT,
        redis_socket_connect_timeout=CONNECT_TIMEOUT,
    )
    return celery


def on_logging_set_up(change: Callable[[logging.Logger], None]) -> None:
    """Call `change` in a worker with each logger that Celery has set up."""

    def receive(logger: logging.Logger, **_: object) -> None:
        change(logger)

    for signal in (after_setup_logger, after_setup_task_logger):
        signal.connect(receive, weak=False, dispatch_uid=__name__)


def on_process_end(call: Callable[[], None]) -> None:
    """Register `call` to be called when a process of a worker ends."""

    def receive(**_: object) -> None:
        call()

    for signal in (worker_process_shutdown, worker_shutdown):
        signal.connect(receive, weak=False)


def add_function(celery: Any, name: str, function: TaskFunction, perform: Callable[..., None]) -> None:
    """Register the function's queue, and a Celery task that calls `perform(request, *body)`."""

    def run(task: Any, *body: object) -> None:
        perform(task.request, *body)

    celery.task(
        run,
        name=name,
        bind=True,
        # The task belongs to this app, not to every Celery application in the process.
        shared=False,
        # A message may be delivered twice. Its record decides, so that a task is executed once.
        acks_late=True,
        reject_on_worker_lost=False,
        # Status and result are in the record. Reading Celery's own result would need a subscription.
        ignore_result=True,
        throws=(TaskFailed,),
    )
    # By default, workers take tasks from all queues in this list.
    queues = celery.conf.task_queues
    if function.queue not in [queue.name for queue in queues]:
        celery.conf.task_queues = [*queues, _queue(function.queue)]


def _queue(name: str) -> Any:
    return Queue(name, Exchange(name, type="direct"), routing_key=name)
