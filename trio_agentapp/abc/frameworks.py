"""The contract of adapters of agent frameworks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from ..errors import ConfigurationError
from ..protocol.message import Message

__all__ = ["AgentCopy", "FrameworkAdapter", "ItemReader", "TaskStop", "TypeConverters"]

TypeConverters = Mapping[Any, Callable[..., Any]]
"""Converters of the user, which come before those of the adapter.

For input, the key is the type of a message, and the function makes an object of the framework. For output, the key
is the name of a block or the class of an item, and the function makes items as Trio handlers yield them.
"""

TaskStop: TypeAlias = Literal["cancel", "cancel_last", "wait", "ignore"]
"""What a stop does with an asyncio task of a handler before the handler gets its CancelledError.

`cancel`: cancel it and wait for its end. `cancel_last`: the same, but only after the task that started it has ended
without cancelling it. `wait`: wait until it ends by itself. `ignore`: nothing.
"""


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
        """Return the items that are still to be sent when the handler has ended."""
        return ()


class AgentCopy(ABC):
    """A copy of an agent for one run. It continues the conversation of its session, and no other run uses it.

    Its methods are called on the asyncio loop.
    """

    @abstractmethod
    def stream(self, messages: Any) -> AsyncIterator[Any]:
        """Answer `messages`, which the adapter has made, with items that its reader understands.

        A stop raises `asyncio.CancelledError` in it, as in a handler. When it ends, nothing of the agent runs.
        """

    @abstractmethod
    async def state(self) -> Any:
        """Return the state with which the next run of the session continues, as JSON values.

        Called when `stream` has ended, also by a stop or with an error. The partial answer of a stop is part of it,
        and open tool calls have a result, because model providers refuse a conversation without.
        """


class FrameworkAdapter(ABC):
    """Translates between an agent framework and the runtime. One adapter serves all runs of an app.

    Its methods are called in the thread of the asyncio loop.
    """

    name: ClassVar[str]
    """The name of the framework in `@app.query(framework=...)`."""

    stops_tasks_first: ClassVar[bool] = False
    """Whether a stop first ends the asyncio tasks of a handler, in which the framework runs its agents, and then
    raises CancelledError in the handler. So the state that the handler saves then is complete.
    """

    stops_in_stream: ClassVar[bool] = False
    """Whether a stop of a handler that is at a `yield` is raised at its next `await`.

    That await is in the framework's stream, which then ends what it has started before the handler continues.
    """

    def __init__(self, type_converters: TypeConverters | None = None) -> None:
        self.type_converters: TypeConverters = type_converters or {}

    @abstractmethod
    def messages(self, messages: Sequence[Message]) -> Any:
        """Return the conversation in the types of the framework, which handlers get as `msgs`."""

    @abstractmethod
    def reader(self) -> ItemReader:
        """Return a reader for the items of one run."""

    def prepare_run(self, run: Any) -> None:  # noqa: B027  most need nothing
        """Add to `run`, the `AsyncioRun` that a handler gets, what handlers of this framework need."""

    def at_stop(self, task: Any) -> TaskStop:
        """Return what a stop does with this asyncio task. Only called if `stops_tasks_first` is true.

        When a handler has ended, its tasks are ended, too: those with "wait" are waited for, others are cancelled.
        """
        return "cancel"

    def open_agent(self, agent: Any, state: Any, *, user_id: str, session_id: str) -> AgentCopy:
        """Return a copy of an agent for one run.

        `state`: what an earlier run of the session returned from `AgentCopy.state`; None if there was none.

        Raises:
            ConfigurationError: an object of this type cannot be copied or run; the message says what to do instead.
                It is raised when the app is made, because a copy is opened there, too.
        """
        raise ConfigurationError(
            f"agent= cannot be a {type(agent).__name__}; run it in a handler: @app.query(framework={self.name!r})"
        )
