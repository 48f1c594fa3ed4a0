"""The operations of A2A on the runs of an app. Both bindings call them, with parameters in the form of 1.0."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs
import trio

from ...errors import BackendUnavailable, Elsewhere, RequestError, RunNotFound, SessionBusy, StreamExpired
from ...protocol.ids import new_run_id, new_session_id
from ...protocol.lifecycle import RunRecord, RunState
from ...protocol.message import Message
from ...protocol.request import AgentRequest
from ...runs import Run
from ...runs.runner import Watched
from ...web.identity import Caller
from ...web.protocol_adapter import ServedApp
from ...web.run_access import Known
from .card import accepts
from .config import AgentCardWithRuntimeConfig
from .faults import A2AError, invalid, kinds
from .memory import TaskMemory
from .parts import content_of
from .push import PushConfigs, PushSender
from .silence import SilenceWatch
from .task import REJECTED, Task, changed_at, stamp, state_of_record, task_of_record
from .versions import Version

__all__ = ["Asked", "Operations", "Started"]

MAX_TIME_LEFT = 365 * 24 * 3600.0
"""Seconds that a caller may have left. More is no limit."""

PAGE = 50
"""Tasks on a page if the client names no size: specification 1.0, ListTasksRequest."""

MAX_LISTED = 10_000
"""Tasks that a listing looks at: the latest of the client."""

CAUGHT_UP = 10.0
"""Seconds that the events of a run may take to be read up to the present."""


@attrs.frozen(kw_only=True)
class Asked:
    """Who asks, in which version, and with which extensions."""

    caller: Caller
    version: Version
    extensions: Sequence[str] = ()
    """The URIs that the client wants to use, and that the agent has."""
    idempotency_key: str | None = None
    body: bytes = b""

    @property
    def authenticated(self) -> str | None:
        principal = self.caller.principal
        return None if principal is None else principal.user_id


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
    configs: PushConfigs
    sender: PushSender
    silence: SilenceWatch

    # Sending.

    async def begin(self, asked: Asked, params: Mapping[str, Any]) -> Started:
        """Start a task with a message, or give the message to the task that it names."""
        message = params["message"]
        configuration = params.get("configuration", {})
        self._check_modes(message)
        push = configuration.get("taskPushNotificationConfig")
        if push is not None:
            self._needs("pushNotifications", kinds.NO_PUSH)
            path = "configuration.pushNotificationConfig." if asked.version.legacy else PUSH_PATH
            self.configs.check(push, path)
        if message.get("taskId"):
            started = await self._continue(asked, message)
        else:
            started = await self._start(asked, params)
        if push is not None and started.watched is not None:
            try:
                await self._notify(asked, started.task.id, push, begun=not message.get("taskId"))
            except BaseException:
                started.watched.subscriber.close()
                raise
        return started

    async def send(self, asked: Asked, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return a `task` or a `message`, with its kind."""
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
        caller = attrs.evolve(asked.caller, named_user=_user_in(metadata))
        request = AgentRequest(
            input=[_message_of(message)],
            id=new_run_id(),
            session_id=message.get("contextId") or new_session_id(),
            user_id=caller.named_user,
            on_disconnect="continue",
            timeout_s=_time_limit(self.config.task_timeout, params.get("metadata")),
            extra={"a2a": _extra_of(asked, params)},
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
        return Started(task=self._task(watched.run_id, watched.session_id), watched=watched)

    def _task(self, task_id: str, context_id: str) -> Task:
        """A task before the first event of its run."""
        return Task(task_id, context_id, self.memory.asked(task_id), seen=self.memory.seen)

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
        if (refused := self.memory.refused(asked.authenticated, task_id)) is not None:
            raise self._over(refused["id"], refused["status"]["state"])
        known = await self.app.access.look(asked.caller, task_id)
        if message.get("contextId") not in (None, known.key.session_id):
            raise invalid("message.contextId", "is not the context of the task")
        if known.latest.state.terminal:
            raise self._over(task_id, state_of_record(known.latest))
        task, watched = await self._snapshot(asked, known)
        turns = task.turns
        try:
            await self.app.access.send_input(asked.caller, task_id, _message_of(message))
        except BaseException:
            if watched is not None:
                watched.subscriber.close()
            raise
        said = {**message, "taskId": task_id, "contextId": known.key.session_id}
        self.memory.remember(task_id, said)
        task.history.append(said)
        return Started(task=task, watched=watched, turns=turns)

    def _over(self, task_id: str, state: str) -> A2AError:
        return A2AError(
            kinds.UNSUPPORTED,
            "This task has ended and takes no more messages; send one without taskId, in its context.",
            {"taskId": task_id, "state": state},
        )

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

    # Reading.

    async def get(self, asked: Asked, params: Mapping[str, Any]) -> dict[str, Any]:
        length = params.get("historyLength")
        if (refused := self.memory.refused(asked.authenticated, params["id"])) is not None:
            return _shortened(refused, length)
        known = await self.app.access.look(asked.caller, params["id"])
        return (await self._read(asked, known)).as_object(history_length=length)

    async def list_tasks(self, asked: Asked, params: Mapping[str, Any]) -> dict[str, Any]:
        records = await self._records(asked, params.get("contextId"))
        if (after := params.get("statusTimestampAfter")) is not None:
            since = datetime.fromisoformat(after).timestamp()
            # Both times have milliseconds.
            records = [record for record in records if round(changed_at(record), 3) >= since]
        tasks: dict[str, Task] = {}
        if (status := params.get("status")) is not None:
            records = [record for record in records if await self._has_state(asked, record, status, tasks)]
        records.sort(key=lambda record: (changed_at(record), record.run_id), reverse=True)
        size = params.get("pageSize") or PAGE
        begin = _place_after(records, params["pageToken"]) if params.get("pageToken") else 0
        page = records[begin : begin + size]
        artifacts = bool(params.get("includeArtifacts"))
        found = []
        for record in page:
            task = tasks.get(record.run_id) or await self._listed(asked, record)
            found.append(task.as_object(history_length=params.get("historyLength"), artifacts=artifacts))
        more = begin + size < len(records)
        return {
            "tasks": found,
            "nextPageToken": _token(page[-1]) if more else "",
            "pageSize": size,
            "totalSize": len(records),
        }

    async def _records(self, asked: Asked, context_id: str | None) -> list[RunRecord]:
        """The runs that the client may list, the latest first."""
        caller = asked.caller
        if caller.user_id is not None:
            owners = [(caller, context_id)]
        else:
            # Without authentication each session has an owner of its own, which is named like it.
            seen = [key for key in self.memory.anonymous() if context_id in (None, key.session_id)]
            owners = [(attrs.evolve(caller, named_user=key.user_id), key.session_id) for key in seen]
            if context_id is not None and not owners:
                owners = [(attrs.evolve(caller, named_user=context_id), context_id)]
        found: list[RunRecord] = []
        for owner, session_id in owners:
            before = None
            while len(found) < MAX_LISTED:
                records, before = await self._page_of_records(owner, session_id, before)
                found += records
                if before is None:
                    break
        return found[:MAX_LISTED]

    async def _page_of_records(
        self, owner: Caller, session_id: str | None, before: str | None
    ) -> tuple[Sequence[RunRecord], str | None]:
        try:
            return await self.app.access.list_runs(owner, session_id=session_id, before=before)
        except RunNotFound:
            return [], None

    async def _has_state(self, asked: Asked, record: RunRecord, status: str, tasks: dict[str, Task]) -> bool:
        state = state_of_record(record)
        if record.state is RunState.RUNNING:
            task = tasks[record.run_id] = await self._listed(asked, record)
            state = task.state
        return state == status

    async def _listed(self, asked: Asked, record: RunRecord) -> Task:
        known = Known(record.key, self.app.access.registry.find(record.run_id), record)
        return await self._read(asked, known)

    async def _read(self, asked: Asked, known: Known) -> Task:
        task, watched = await self._snapshot(asked, known)
        if watched is not None:
            watched.subscriber.close()
        return task

    async def _snapshot(self, asked: Asked, known: Known) -> tuple[Task, Watched | None]:
        """The task of a run as it is now, and a reader at the event after that.

        If its events are not at hand, there is no reader, and the task has its state only.
        """
        record = known.latest
        try:
            end = await self.app.access.viewing.end(record)
            watched = await self.app.access.attach(asked.caller, record.run_id)
        except (StreamExpired, Elsewhere):
            return task_of_record(record, self.memory.asked(record.run_id)), None
        assert watched is not None  # noqa: S101  every run has a first event
        task = self._task(record.run_id, record.key.session_id)
        try:
            with trio.move_on_after(CAUGHT_UP):
                while not task.terminal and watched.subscriber.position < end:
                    for event in await watched.subscriber.receive():
                        task.apply(event)
                if task.gap and known.run is not None and not task.terminal:
                    task = await self._recapped(known.run, watched)
        except (trio.EndOfChannel, trio.ClosedResourceError):
            watched.subscriber.close()
            raise BackendUnavailable("This task cannot be read at present.", retry_after=1.0) from None
        except BaseException:
            watched.subscriber.close()
            raise
        if task.terminal is record.state.terminal:
            # Events have whole seconds; the order of a listing needs more.
            task.timestamp = stamp(changed_at(record))
        return task, watched

    async def _recapped(self, run: Run, watched: Watched) -> Task:
        """The task of a run on this node whose first events are not kept any more."""
        task = self._task(run.run_id, run.session_id)
        task.begin()
        while watched.subscriber.ready:
            await watched.subscriber.receive()  # it has them, so nothing happens meanwhile
        for event in run.builder.recap():
            task.apply(event)
        return task

    async def subscribe(self, asked: Asked, params: Mapping[str, Any]) -> tuple[Task, Watched]:
        """Return the task as it is now, and a reader of what follows."""
        self._needs("streaming", kinds.UNSUPPORTED)
        task_id = params["id"]
        if (refused := self.memory.refused(asked.authenticated, task_id)) is not None:
            raise self._ended(task_id, refused["status"]["state"])
        known = await self.app.access.look(asked.caller, task_id)
        if known.latest.state.terminal:
            raise self._ended(task_id, state_of_record(known.latest))
        task, watched = await self._snapshot(asked, known)
        if watched is None:
            raise Elsewhere(known.as_record.node_id)
        if task.terminal:
            watched.subscriber.close()
            raise self._ended(task_id, task.state)
        return task, watched

    def _ended(self, task_id: str, state: str) -> A2AError:
        return A2AError(
            kinds.UNSUPPORTED,
            "This task has ended, so there is nothing to follow.",
            {"taskId": task_id, "state": state},
        )

    # Canceling.

    async def cancel(self, asked: Asked, params: Mapping[str, Any]) -> dict[str, Any]:
        """Stop the run of a task, wait until nothing of it runs, and return the task."""
        task_id = params["id"]
        if (refused := self.memory.refused(asked.authenticated, task_id)) is not None:
            raise self._not_cancelable(task_id, refused["status"]["state"])
        known = await self.app.access.look(asked.caller, task_id)
        if known.latest.state.terminal:
            raise self._not_cancelable(task_id, state_of_record(known.latest))
        receipt = await self.app.access.cancel(asked.caller, task_id, wait=True)
        known = await self.app.access.look(asked.caller, task_id)
        if receipt.state.terminal and not receipt.stopped:
            raise self._not_cancelable(task_id, state_of_record(known.latest))
        return (await self._read(asked, known)).as_object(history_length=params.get("historyLength"))

    def _not_cancelable(self, task_id: str, state: str) -> A2AError:
        return A2AError(
            kinds.NOT_CANCELABLE, "Task cannot be canceled: it has ended.", {"taskId": task_id, "state": state}
        )

    # Push notifications.

    async def add_config(self, asked: Asked, params: Mapping[str, Any]) -> Mapping[str, Any]:
        await self._owned(asked, params)
        return await self._notify(asked, params["taskId"], params)

    async def get_config(self, asked: Asked, params: Mapping[str, Any]) -> Mapping[str, Any]:
        await self._owned(asked, params)
        known = self.configs.of(params["taskId"]).get(params["id"])
        if known is None:
            raise A2AError(
                kinds.NO_TASK, "The task has no push notification config of this id.", {"taskId": params["taskId"]}
            )
        return known.config

    async def list_configs(self, asked: Asked, params: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        await self._owned(asked, params)
        return [pushed.config for pushed in self.configs.of(params["taskId"]).values()]

    async def delete_config(self, asked: Asked, params: Mapping[str, Any]) -> None:
        await self._owned(asked, params)
        self.configs.remove(params["taskId"], params["id"])

    async def _owned(self, asked: Asked, params: Mapping[str, Any]) -> None:
        self._needs("pushNotifications", kinds.NO_PUSH)
        if self.memory.refused(asked.authenticated, params["taskId"]) is None:
            await self.app.access.look(asked.caller, params["taskId"])

    async def _notify(
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
        known = await self.app.access.look(asked.caller, task_id)
        if begun:
            watched = await self.app.access.attach(asked.caller, task_id)
            task = self._task(task_id, known.key.session_id)
        elif known.latest.state.terminal:
            return
        else:
            task, watched = await self._snapshot(asked, known)
        if watched is not None:
            self.sender.follow(watched, task)

    def _needs(self, capability: str, kind: Any) -> None:
        if not self.card["capabilities"].get(capability):
            raise A2AError(kind, f"{kind.text}: the agent card does not offer {capability}.")

    def needs_streaming(self) -> None:
        """Raises A2AError: the card offers no streams."""
        self._needs("streaming", kinds.UNSUPPORTED)


PUSH_PATH = "configuration.taskPushNotificationConfig."


def _message_of(message: Mapping[str, Any]) -> Message:
    metadata = dict(message.get("metadata") or {})
    if isinstance(named := metadata.get("questionId"), str):
        metadata.setdefault("question_id", named)
    return Message(
        role="user" if message["role"] == "ROLE_USER" else "assistant",
        content=[content_of(part) for part in message["parts"]],
        id=message["messageId"],
        metadata=metadata or None,
    )


def _time_limit(of_app: float | None, metadata: Mapping[str, Any] | None) -> float | None:
    """The seconds that a task may take: those of the app, or those that its caller has left, if they are fewer."""
    left = (metadata or {}).get("timeout_s")
    if isinstance(left, bool) or not isinstance(left, int | float) or not 0 < left <= MAX_TIME_LEFT:
        return of_app
    return float(left) if of_app is None else min(of_app, left)


def _user_in(metadata: Mapping[str, Any]) -> str | None:
    """The user that a message names, for an app without authentication."""
    from ...protocol.ids import identifier_fault

    for name in ("user_id", "userId"):
        user = metadata.get(name)
        if isinstance(user, str) and user:
            if (fault := identifier_fault(user)) is not None:
                raise invalid(f"metadata.{name}", fault)
            return user
    return None


def _extra_of(asked: Asked, params: Mapping[str, Any]) -> dict[str, Any]:
    """What a handler finds in `request.extra["a2a"]`."""
    message, configuration = params["message"], params.get("configuration", {})
    return {
        "version": asked.version.name,
        "message_id": message["messageId"],
        "metadata": params.get("metadata") or {},
        "message_metadata": message.get("metadata") or {},
        "extensions": list(asked.extensions),
        "accepted_output_modes": configuration.get("acceptedOutputModes") or [],
        "reference_task_ids": message.get("referenceTaskIds") or [],
    }


def _shortened(task: Mapping[str, Any], length: int | None) -> dict[str, Any]:
    history = task.get("history", [])
    if length is not None:
        history = history[max(0, len(history) - length) :]
    found = {name: value for name, value in task.items() if name != "history"}
    return {**found, "history": history} if history else found


def _token(record: RunRecord) -> str:
    """The cursor after a task: when it changed, and its id."""
    return base64.urlsafe_b64encode(f"{changed_at(record)!r} {record.run_id}".encode()).decode()


def _place_after(records: Sequence[RunRecord], token: str) -> int:
    try:
        at, run_id = base64.b64decode(token.encode(), b"-_", validate=True).decode().split(" ")
        cursor = (float(at), run_id)
    except (ValueError, binascii.Error):
        raise invalid("pageToken", "is none that a listing has returned") from None
    for place, record in enumerate(records):
        if (changed_at(record), record.run_id) < cursor:
            return place
    return len(records)
