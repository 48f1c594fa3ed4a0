"""The push notifications of tasks, as clients ask for them. `push.py` delivers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ...errors import RequestError
from ...web.run_access import RunAccess
from .asked import Asked
from .faults import A2AError, kinds, needs
from .memory import TaskMemory
from .push import PushSender
from .push_configs import PushConfigs
from .task_reader import TaskReader

__all__ = ["Notifications"]


@attrs.frozen
class Notifications:
    """Keeps the configs of tasks. Each method raises A2AError, or a RequestError of the runtime."""

    access: RunAccess
    card: Mapping[str, Any]
    memory: TaskMemory
    configs: PushConfigs
    sender: PushSender
    reader: TaskReader

    async def add(self, asked: Asked, params: Mapping[str, Any]) -> Mapping[str, Any]:
        await self._owned(asked, params)
        return await self.notify(asked, params["taskId"], params)

    async def get(self, asked: Asked, params: Mapping[str, Any]) -> Mapping[str, Any]:
        await self._owned(asked, params)
        known = self.configs.of(params["taskId"]).get(params["id"])
        if known is None:
            raise A2AError(
                kinds.NO_TASK, "The task has no push notification config of this id.", {"taskId": params["taskId"]}
            )
        return known.config

    async def list(self, asked: Asked, params: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        await self._owned(asked, params)
        return [pushed.config for pushed in self.configs.of(params["taskId"]).values()]

    async def delete(self, asked: Asked, params: Mapping[str, Any]) -> None:
        await self._owned(asked, params)
        self.configs.remove(params["taskId"], params["id"])

    async def _owned(self, asked: Asked, params: Mapping[str, Any]) -> None:
        needs(self.card, "pushNotifications", kinds.NO_PUSH)
        if self.memory.refused(asked.authenticated, params["taskId"]) is None:
            await self.access.look(asked.caller, params["taskId"])

    async def notify(
        self, asked: Asked, task_id: str, config: Mapping[str, Any], *, begun: bool = False
    ) -> Mapping[str, Any]:
        """Keep a config, and deliver from now on; if the task was just begun, from its beginning."""
        kept = self.configs.add(task_id, config, asked.version)
        if not self.sender.follows(task_id):
            try:
                await self._follow(asked, task_id, begun)
            except RequestError:
                self.configs.remove(task_id, kept["id"])
                raise
        return kept

    async def _follow(self, asked: Asked, task_id: str, begun: bool) -> None:
        known = await self.access.look(asked.caller, task_id)
        if begun:
            watched = await self.access.attach(asked.caller, task_id)
            task = self.reader.begin(task_id, known.key.session_id)
        elif known.latest.state.terminal:
            return
        else:
            task, watched = await self.reader.snapshot(asked, known)
        if watched is not None:
            self.sender.follow(watched, task)
