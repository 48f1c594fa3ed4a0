"""What an adapter of an agent framework does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from ..errors import ConfigurationError
from ..protocol.message import Message

__all__ = ["AgentCopy", "FrameworkAdapter", "ItemReader", "TaskStop", "TypeConverters"]

TypeConverters = Mapping[Any, Callable[..., Any]]
"""Converters of a user's own, asked first: by the type of a message on the way in (`Message -> framework object`),
and by the name of a block or the class of an item on the way out (`block or item -> items of ours`)."""

TaskStop: TypeAlias = Literal["cancel", "cancel_last", "wait", "ignore"]
"""What a stop does with an asyncio task of a handler before the handler gets its CancelledError: cancel it and wait
for its end; the same, but only when the task that has started it has ended without doing so; wait for it to end by
itself; or nothing."""


class ItemReader(ABC):
    """Translates what one handler yields in one run. It may keep state between items."""

    usage: Mapping[str, Any] | None = None
    """Tokens that the model used, once it is known."""

    @abstractmethod
    def read(self, item: Any) -> Iterable[object]:
        """Translate one item into text, content and messages, as Trio handlers yield them.

        Raises ItemError, which names the type, for an item that the framework does not stream.
        """

    def end(self) -> Iterable[object]:
        """What is still to be sent when the handler has ended."""
        return ()


class AgentCopy(ABC):
    """A ready agent in one run. It continues the conversation of its session, and no other run uses it.

    Its methods are called on the asyncio loop.
    """

    @abstractmethod
    def stream(self, messages: Any) -> AsyncIterator[Any]:
        """Answer `messages`, which the adapter has made, with items that its reader understands.

        A stop raises `asyncio.CancelledError` in it, as in a handler. When it ends, nothing of the agent runs.
        """

    @abstractmethod
    async def state(self) -> Any:
        """What the next run of the session continues with, as JSON values.

        Called when `stream` has ended, also by a stop or with an error. The partial answer of a stop is part of it,
        and open tool calls have a result, because model providers refuse a conversation without.
        """


class FrameworkAdapter(ABC):
    """Translates between an agent framework and the runtime. One adapter serves all runs of an app.

    Its methods are called in the thread of the asyncio loop.
    """

    name: ClassVar[str]
    """What `@app.query(framework=...)` calls it."""

    stops_tasks_first: ClassVar[bool] = False
    """Whether a stop ends the asyncio tasks of a handler, in which the framework runs its agents, before it gets a
    CancelledError itself. What it saves then is complete."""

    stops_in_stream: ClassVar[bool] = False
    """Whether a stop that finds a handler at a `yield` waits for its next `await`. That is within the framework's
    stream, which then ends what it has started before the handler goes on."""

    def __init__(self, type_converters: TypeConverters | None = None) -> None:
        self.type_converters: TypeConverters = type_converters or {}

    @abstractmethod
    def messages(self, messages: Sequence[Message]) -> Any:
        """The conversation in the framework's own types: what its handlers get as `msgs`."""

    @abstractmethod
    def reader(self) -> ItemReader:
        """A reader for the items of one run."""

    def prepare_run(self, run: Any) -> None:  # noqa: B027  most need nothing
        """Add to `run`, the `AsyncioRun` that a handler gets, what handlers of this framework need."""

    def at_stop(self, task: Any) -> TaskStop:
        """What a stop does with this asyncio task, with `stops_tasks_first`.

        A handler that has ended is followed by the end of its tasks: one of "wait" is waited for, others are
        cancelled.
        """
        return "cancel"

    def open_agent(self, agent: Any, state: Any, *, user_id: str, session_id: str) -> AgentCopy:
        """A copy of a ready agent for one run.

        `state`: what an earlier run of the session returned from `AgentCopy.state`; None if there was none.

        Raises:
            ConfigurationError: an object of this type cannot be copied or run; the message says what to do instead.
                It is raised when the app is made, because a copy is opened there, too.
        """
        raise ConfigurationError(
            f"agent= cannot be a {type(agent).__name__}; run it in a handler: @app.query(framework={self.name!r})"
        )
