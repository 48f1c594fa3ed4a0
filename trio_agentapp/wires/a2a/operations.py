"""The operations of A2A on the runs of an app. Both bindings call them, with parameters in the form of 1.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import trio

from ...errors import BackendUnavailable, Elsewhere, SessionBusy, ValidationError
from ...protocol.ids import new_run_id, new_session_id
from ...protocol.request import AgentRequest
from ...runs.runner import Watched
from ...web.protocol_adapter import ServedApp
from ...web.run_access import Known
from .asked import Asked
from .card import accepts
from .config import AgentCardWithRuntimeConfig
from .faults import A2AError, Kind, kinds, needs
from .incoming import extra_of, message_of, time_limit, user_in
from .listing import TaskListing
from .memory import TaskMemory
from .notifications import Notifications
from .silence import SilenceWatch
from .task import Task, stamp
from .task_reader import TaskReader
from .task_states import REJECTED, changed_at, state_of_record

__all__ = ["Operations", "Started"]

PUSH_PATH = "configuration.taskPushNotificationConfig."

# Why a task that has ended is not what a request needs.
TAKES_NO_MORE = "This task has ended and takes no more messages; send one without taskId, in its context."
NOTHING_FOLLOWS = "This task has ended, so there is nothing to follow."
NOT_CANCELABLE = "Task cannot be canceled: it has ended."


@attrs.frozen(kw_only=True)
class Started:
    """A task that a message has started or continued. `watched` is at the event after those of `task`."""

    task: Task
    watched: Watched | None
    """None: the task was refused, or its events are on another node."""
    turns: int = 0
    """Questions and answers of the task before the message."""

    @property
    def settled(self) -> bool:
        """Whether a blocking send answers now."""
        return (
            self.watched is None or self.task.terminal or (self.task.interrupted and self.task.turns > self.turns)
        )

    async def settle(self) -> None:
        """Read until the task has ended, or waits for an answer. Closes the reader."""
        if self.watched is None:
            return
        with self.watched.subscriber as subscriber:
            while not self.settled:
                try:
                    batch = await subscriber.receive()
                except (trio.EndOfChannel, trio.ClosedResourceError):
                    raise BackendUnavailable(
                        "The end of this task cannot be read at present.", retry_after=1.0
                    ) from None
                for event in batch:
                    self.task.apply(event)


@attrs.define
class Operations:
    """What clients ask for. Each raises A2AError, or a RequestError of the runtime."""

    app: ServedApp
    config: AgentCardWithRuntimeConfig
    card: Mapping[str, Any]
    """The public card, completed, without addresses."""
    memory: TaskMemory
    reader: TaskReader
    listing: TaskListing
    notifications: Notifications
    silence: SilenceWatch

    # Sending.

    async def begin(self, asked: Asked, params: Mapping[str, Any]) -> Started:
        """Start a task with a message, or give the message to the task that it names."""
        message = params["message"]
        configuration = params.get("configuration", {})
        self._check_modes(message)
        push = configuration.get("taskPushNotificationConfig")
        if push is not None:
            needs(self.card, "pushNotifications", kinds.NO_PUSH)
            path = "configuration.pushNotificationConfig." if asked.version.legacy else PUSH_PATH
            self.notifications.configs.check(push, path)
        if message.get("taskId"):
            started = await self._continue(asked, message)
        else:
            started = await self._start(asked, params)
        if push is not None and started.watched is not None:
            try:
                await self.notifications.notify(asked, started.task.id, push, begun=not message.get("taskId"))
            except BaseException:
                started.watched.subscriber.close()
                raise
        return started

    async def send(self, asked: Asked, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Send a message to the agent. Return "task" or "message", and that object."""
        started = await self.begin(asked, params)
        configuration = params.get("configuration", {})
        if not configuration.get("returnImmediately"):
            await started.settle()
        elif started.watched is not None:
            with started.watched.subscriber as subscriber:
                while subscriber.ready:
                    for event in await subscriber.receive():
                        started.task.apply(event)
        if (message := started.task.reply) is not None:
            return "message", message
        if started.watched is not None and started.task.terminal:
            known = await self.app.access.describe(started.watched)
            started.task.timestamp = stamp(changed_at(known.latest))
        return "task", started.task.as_object(history_length=configuration.get("historyLength"))

    async def _start(self, asked: Asked, params: Mapping[str, Any]) -> Started:
        message = params["message"]
        metadata = {**(params.get("metadata") or {}), **(message.get("metadata") or {})}
        caller = attrs.evolve(asked.caller, named_user=user_in(metadata))
        request = AgentRequest(
            input=[message_of(message)],
            id=new_run_id(),
            session_id=message.get("contextId") or new_session_id(),
            user_id=caller.named_user,
            on_disconnect="continue",
            timeout_s=time_limit(self.config.task_timeout, params.get("metadata")),
            extra={"a2a": extra_of(asked, params)},
        )
        try:
            watched = await self.app.access.start(
                caller, request, idempotency_key=asked.idempotency_key, body=asked.body
            )
        except SessionBusy as busy:
            return Started(task=self._refuse(asked, request, message, busy), watched=None)
        if not self.memory.asked(watched.run_id):
            said = {**message, "taskId": watched.run_id, "contextId": watched.session_id}
            self.memory.remember(watched.run_id, said)
        if caller.principal is None:
            self.memory.note_anonymous(watched.key)
        if self.config.task_event_timeout is not None and watched.run is not None:
            self.silence.watch(watched.run)
        return Started(task=self.reader.begin(watched.run_id, watched.session_id), watched=watched)

    def _refuse(self, asked: Asked, request: AgentRequest, message: Mapping[str, Any], busy: SessionBusy) -> Task:
        """A task that was rejected because its context has a live one."""
        assert request.id is not None  # noqa: S101  it was given
        assert request.session_id is not None  # noqa: S101
        task = Task(request.id, request.session_id)
        task.history.append({**message, "taskId": task.id, "contextId": task.context_id})
        task.state = REJECTED
        task.refuse(busy.detail, {"code": busy.code, "activeTaskId": busy.active_run_id})
        self.memory.refuse(asked.authenticated, task.as_object())
        return task

    async def _continue(self, asked: Asked, message: Mapping[str, Any]) -> Started:
        task_id = message["taskId"]
        known = await self._live(asked, task_id, TAKES_NO_MORE)
        if message.get("contextId") not in (None, known.key.session_id):
            raise ValidationError([("message.contextId", "is not the context of the task")])
        task, watched = await self.reader.snapshot(asked, known)
        turns = task.turns
        try:
            await self.app.access.send_input(asked.caller, task_id, message_of(message))
        except BaseException:
            if watched is not None:
                watched.subscriber.close()
            raise
        said = {**message, "taskId": task_id, "contextId": known.key.session_id}
        self.memory.remember(task_id, said)
        task.history.append(said)
        return Started(task=task, watched=watched, turns=turns)

    def _check_modes(self, message: Mapping[str, Any]) -> None:
        modes = [*self.card["defaultInputModes"]]
        for skill in self.card["skills"]:
            modes += skill.get("inputModes", [])
        for place, part in enumerate(message["parts"]):
            kind = part.get("mediaType")
            if kind and not accepts(modes, kind):
                raise A2AError(
                    kinds.CONTENT_TYPE,
                    f"This agent does not take {kind[:80]!r}; it takes {', '.join(dict.fromkeys(modes))}.",
                    {"mediaType": kind[:80], "part": str(place)},
                )

    async def _live(self, asked: Asked, task_id: str, fault: str, kind: Kind = kinds.UNSUPPORTED) -> Known:
        """Look up the run of a task. Raises A2AError with `fault`: the task has ended."""
        if (refused := self.memory.refused(asked.authenticated, task_id)) is not None:
            raise _over(task_id, refused["status"]["state"], fault, kind)
        known = await self.app.access.look(asked.caller, task_id)
        if known.latest.state.terminal:
            raise _over(task_id, state_of_record(known.latest), fault, kind)
        return known

    # Reading.

    async def get(self, asked: Asked, params: Mapping[str, Any]) -> dict[str, Any]:
        length = params.get("historyLength")
        if (refused := self.memory.refused(asked.authenticated, params["id"])) is not None:
            return _shortened(refused, length)
        known = await self.app.access.look(asked.caller, params["id"])
        return (await self.reader.read(asked, known)).as_object(history_length=length)

    async def subscribe(self, asked: Asked, params: Mapping[str, Any]) -> tuple[Task, Watched]:
        """Return the task as it is now, and a reader of what follows."""
        needs(self.card, "streaming", kinds.UNSUPPORTED)
        task_id = params["id"]
        known = await self._live(asked, task_id, NOTHING_FOLLOWS)
        task, watched = await self.reader.snapshot(asked, known)
        if watched is None:
            raise Elsewhere(known.as_record.node_id)
        if task.terminal:
            watched.subscriber.close()
            raise _over(task_id, task.state, NOTHING_FOLLOWS)
        return task, watched

    # Canceling.

    async def cancel(self, asked: Asked, params: Mapping[str, Any]) -> dict[str, Any]:
        """Stop the run of a task, wait until nothing of it runs, and return the task."""
        task_id = params["id"]
        await self._live(asked, task_id, NOT_CANCELABLE, kinds.NOT_CANCELABLE)
        receipt = await self.app.access.cancel(asked.caller, task_id, wait=True)
        known = await self.app.access.look(asked.caller, task_id)
        if receipt.state.terminal and not receipt.stopped:
            raise _over(task_id, state_of_record(known.latest), NOT_CANCELABLE, kinds.NOT_CANCELABLE)
        return (await self.reader.read(asked, known)).as_object(history_length=params.get("historyLength"))


def _over(task_id: str, state: str, fault: str, kind: Kind = kinds.UNSUPPORTED) -> A2AError:
    return A2AError(kind, fault, {"taskId": task_id, "state": state})


def _shortened(task: dict[str, Any], length: int | None) -> dict[str, Any]:
    if length is None:
        return task
    shortened = {**task, "history": task["history"][max(0, len(task["history"]) - length) :]}
    if not shortened["history"]:
        del shortened["history"]
    return shortened
