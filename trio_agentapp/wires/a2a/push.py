"""Push notifications: the tasks that are followed for their configs.

A config belongs to the node that got it. That node reads the events of the task, wherever it runs, and sends them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from ...protocol.events import Event
from ...runs import Gap
from ...runs.runner import Watched
from .push_configs import PushConfigs
from .receiver import Receiver, Slots
from .task import Task

__all__ = ["PushSender"]

logger = logging.getLogger("trio_agentapp.wires.a2a")


class PushSender:
    """Reads the events of tasks with configs, and delivers them. Runs in the nursery of the adapter."""

    def __init__(self, configs: PushConfigs, nursery: trio.Nursery) -> None:
        self._configs = configs
        self._nursery = nursery
        self._slots = Slots()
        self._followed: set[str] = set()
        self._idle = trio.Event()
        self._idle.set()

    def follow(self, watched: Watched, task: Task) -> None:
        """Deliver what happens to a task from now on. Takes the reader over, and closes it at the end.

        `task` has all events that were read.
        """
        if watched.run_id in self._followed:
            watched.subscriber.close()
            return
        if not self._followed:
            self._idle = trio.Event()
        self._followed.add(watched.run_id)
        task.live = True
        self._nursery.start_soon(self._follow, watched, task, name=f"push of task {watched.run_id}")

    async def wait_idle(self) -> None:
        """Wait until nothing is left to deliver."""
        await self._idle.wait()

    def follows(self, task_id: str) -> bool:
        return task_id in self._followed

    async def _follow(self, watched: Watched, task: Task) -> None:
        try:
            async with trio.open_nursery() as nursery:
                receivers: dict[str, Receiver] = {}
                try:
                    with watched.subscriber as subscriber:
                        await self._read(subscriber.receive, task, receivers, nursery)
                finally:
                    for receiver in receivers.values():
                        receiver.close()
        except Exception:
            # A receiver is named by a client: whatever fails there, the app and its other tasks go on.
            logger.exception("task %s: its push notifications have ended", task.id)
        finally:
            self._followed.discard(watched.run_id)
            if not self._followed:
                self._idle.set()

    async def _read(
        self,
        receive: Callable[[], Awaitable[Sequence[Event | Gap]]],
        task: Task,
        receivers: dict[str, Receiver],
        nursery: trio.Nursery,
    ) -> None:
        while True:
            try:
                batch = await receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                return
            for event in batch:
                for kind, update in task.apply(event):
                    body = self._notice(kind, update, task)
                    if body is not None:
                        self._offer(task, kind, body, receivers, nursery)

    def _notice(self, kind: str, update: dict[str, Any], task: Task) -> dict[str, Any] | None:
        """What is sent of an update: each status, and each artifact when it is complete."""
        if kind == "statusUpdate":
            return update
        if not update["lastChunk"]:
            return None
        whole = task.artifacts[update["artifact"]["artifactId"]].whole()
        return None if whole is None else {**update, "artifact": whole, "append": False}

    def _offer(
        self,
        task: Task,
        kind: str,
        body: dict[str, Any],
        receivers: dict[str, Receiver],
        nursery: trio.Nursery,
    ) -> None:
        for config_id, pushed in self._configs.of(task.id).items():
            receiver = receivers.get(config_id)
            if receiver is None:
                receiver = receivers[config_id] = Receiver(self._configs, task.id, config_id, self._slots)
                nursery.start_soon(receiver.run)
            if not pushed.version.legacy:
                receiver.put({kind: body})
            elif kind == "statusUpdate":
                # 0.3 sends the task (section 9.5 of its specification).
                receiver.put(pushed.version.task(task.as_object()))
