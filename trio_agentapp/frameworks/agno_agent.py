"""An agent or a team of Agno as a ready agent: `AgentApp(agent=agent)`."""

from __future__ import annotations

import copy
import inspect
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.models.message import Message
from agno.run.base import RunStatus
from agno.session import AgentSession, TeamSession
from agno.team import Team
from agno.utils.serialize import json_serializer

from ..abc.frameworks import AgentCopy
from ..errors import ConfigurationError
from ..protocol.message import INTERRUPTED
from .call import wait_saved
from .tool_messages import object_of

__all__ = ["RunnableCopy"]

UNFINISHED = (RunStatus.cancelled, RunStatus.error)
"""The states of runs that Agno does not show to the model in later runs."""

YES = frozenset({"yes", "y", "true", "ok", "confirm", "confirmed"})
"""Answers that confirm a tool call, in upper or lower case. Any other answer rejects it."""


class RunnableCopy(AgentCopy):
    """A copy of an agent or a team for one run. It shares the model and the `db` with the other copies.

    If the agent has a `db`, Agno keeps the conversation there. Otherwise the copy gets a db in memory, and the
    state is the Agno session in it. Agno leaves stopped and failed runs out of the history. So such a run is saved
    again as completed, with the partial answer and a result for each open tool call.
    """

    def __init__(self, agent: Any, state: Any, user_id: str, session_id: str) -> None:
        if not isinstance(agent, Agent | Team):
            raise ConfigurationError(f"agent= must be an Agent or a Team of Agno, not a {type(agent).__name__}")
        # Databases of Agno find a session by its id alone, so the id includes the user. It is a JSON list, since
        # joined text would not tell the pair "a/b", "c" from the pair "a", "b/c".
        self._owner: Any = {"user_id": user_id, "session_id": json.dumps([user_id, session_id])}
        self._memory = InMemoryDb() if agent.db is None else None
        self._agent = _copied(agent, self._memory)
        saved = (state or {}).get("session")
        if self._memory is not None and saved:
            kind = TeamSession if isinstance(agent, Team) else AgentSession
            self._memory.upsert_session(kind.from_dict(saved))
        self._run_id = str(uuid.uuid4())
        self._given: list[Message] = []
        self._said = [Message(role="assistant", content="")]
        """What the model has said and called in this run, one message for each request."""
        self._results: dict[str | None, str] = {}

    async def stream(self, messages: list[Message]) -> AsyncIterator[Any]:
        """Run the agent. A run that is paused until a person answers gets the text of the last message."""
        self._given = messages
        events = await self._begin(messages)
        try:
            async with aclosing(events):
                async for event in events:
                    if getattr(event, "run_id", None) == self._run_id:
                        self._note(event)
                    yield event
        finally:
            await wait_saved()

    async def state(self) -> Any:
        session = await self._agent.aget_session(**self._owner)
        for run in (session and session.runs) or ():
            if run.run_id == self._run_id and run.status in UNFINISHED:
                await self._keep(session, copy.deepcopy(run))
        if self._memory is None:
            return {}
        kept = self._memory.get_session(**self._owner, deserialize=False)
        return {"session": json.loads(json.dumps(kept, default=json_serializer))}

    async def _begin(self, messages: list[Message]) -> Any:
        options = {**self._owner, "stream": True, "stream_events": True}
        session = await self._agent.aget_session(**self._owner)
        runs = [run for run in (session and session.runs) or () if not run.parent_run_id]
        if runs and runs[-1].status == RunStatus.paused and runs[-1].requirements:
            paused = copy.deepcopy(runs[-1])
            self._run_id = paused.run_id
            for requirement in paused.requirements:
                _answer(requirement, messages[-1].get_content_string() if messages else "")
                tool = requirement.tool_execution
                if tool.result is not None:
                    self._results[tool.tool_call_id] = tool.result
            return self._agent.acontinue_run(run_id=self._run_id, requirements=paused.requirements, **options)
        given: Any = messages
        if len(messages) == 1 and messages[0].role == "user" and messages[0].content:
            # Agno searches its knowledge only if the input is text, and a team joins a list into one text.
            [message] = messages
            given = message.content
            options |= {name: getattr(message, name) for name in ("images", "audio", "videos", "files")}
        return self._agent.arun(given, run_id=self._run_id, **options)

    def _note(self, event: Any) -> None:
        kind, last = event.event.removeprefix("Team"), self._said[-1]
        if kind == "ModelRequestStarted":
            self._said.append(Message(role="assistant", content=""))
        elif kind == "RunContent" and isinstance(event.content, str):
            last.content = f"{last.content}{event.content}"
        elif kind == "ToolCallStarted":
            arguments = json.dumps(event.tool.tool_args or {}, ensure_ascii=False, default=str)
            function = {"name": event.tool.tool_name, "arguments": arguments}
            call = {"id": event.tool.tool_call_id, "type": "function", "function": function}
            last.tool_calls = [*(last.tool_calls or []), call]
        elif kind == "ToolCallCompleted":
            self._results[event.tool.tool_call_id] = str(event.tool.result)

    # Runs that were stopped or have failed.

    async def _keep(self, session: Any, run: Any) -> None:
        run.messages = self._messages(run)
        run.metadata = {**(run.metadata or {}), "ended_as": RunStatus(run.status).value}
        run.status = RunStatus.completed
        session.upsert_run(run)
        await self._agent.asave_session(session)
        with suppress(NotImplementedError):  # such a db keeps runs inside the session, which is saved
            saving = self._agent.db.upsert_run(run=run, **self._owner)
            if inspect.isawaitable(saving):
                await saving

    def _messages(self, run: Any) -> list[Message]:
        """Return the messages of the run in a form that a model provider accepts.

        Agno puts the whole text of an unfinished run into its last assistant message without text, or drops the
        text. Here the text goes into the message in which the model wrote it.
        """
        messages = [*(run.messages or self._given)]
        said = {id: message for message in self._said for id in _call_ids(message)}
        known = {id for message in messages for id in _call_ids(message)}
        for message in messages:
            if any(id in said and not said[id].content for id in _call_ids(message)):
                message.content = None
        messages += [message for message in self._said if message.tool_calls and not known & _call_ids(message)]
        partial = self._said[-1]
        if partial.content and not partial.tool_calls:
            last = messages[-1] if messages else None
            if last is None or last.role != "assistant" or last.tool_calls or last.content != partial.content:
                messages.append(partial)
        return self._answered(messages)

    def _answered(self, messages: list[Message]) -> list[Message]:
        """Return the messages, with a result for each open tool call after the message that called it."""
        answered = {message.tool_call_id for message in messages if message.role == "tool"}
        made: list[Message] = []
        for message in messages:
            made.append(message)
            for call in message.tool_calls or ():
                if call["id"] not in answered:
                    result = self._results.get(call["id"])
                    made.append(
                        Message(
                            role="tool",
                            content=INTERRUPTED if result is None else result,
                            tool_call_id=call["id"],
                            tool_name=call["function"]["name"],
                            tool_call_error=result is None,
                        )
                    )
        return made


def _copied(agent: Any, memory: InMemoryDb | None) -> Any:
    agent.set_id()  # without an id each copy would get a different one
    changes: dict[str, Any] = {}
    if memory is not None:
        changes = {"db": memory, "add_history_to_context": True}
        for name in ("memory_manager", "learning"):
            # Agno gives these the db of the first agent that uses them, so each copy needs its own.
            if getattr(getattr(agent, name), "db", agent) is None:
                changes[name] = copy.copy(getattr(agent, name))
    try:
        made = agent.deep_copy(update=changes)
    except Exception as error:
        raise ConfigurationError(
            f"agent= is copied for each run, and {type(agent).__name__}.deep_copy() failed ({error}); "
            "make the agent in a handler instead: @app.query(framework='agno')"
        ) from error
    if made is agent:
        raise ConfigurationError(
            f"agent= is copied for each run, and {type(agent).__name__}.deep_copy() returned the agent itself; "
            "make the agent in a handler instead: @app.query(framework='agno')"
        )
    return made


def _call_ids(message: Message) -> set[str]:
    return {call["id"] for call in message.tool_calls or ()} if message.role != "tool" else set()


def _answer(requirement: Any, text: str) -> None:
    """Answer what a paused run waits for: a confirmation, values, choices or a result."""
    if requirement.needs_confirmation:
        if text.strip().lower() in YES:
            requirement.confirm()
        else:
            requirement.reject(text)
    if requirement.needs_user_feedback:
        questions = [question.question for question in requirement.user_feedback_schema]
        chosen = object_of(text) or {questions[0]: [text]}
        requirement.provide_user_feedback({name: _listed(value) for name, value in chosen.items()})
    elif requirement.needs_user_input:
        missing = [field.name for field in requirement.user_input_schema or () if field.value is None]
        requirement.provide_user_input(object_of(text) or dict.fromkeys(missing[:1], text))
    if requirement.needs_external_execution:
        requirement.set_external_execution_result(text)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
