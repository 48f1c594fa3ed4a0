"""The contracts of what is kept between the turns of a session: its state, and its history."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import trio

from ..protocol.message import Message

__all__ = ["SessionStore", "StateStore"]


class StateStore(ABC):
    """Keeps one state per user and session: a mapping of JSON-like values, saved and loaded as a whole.

    What survives: None, booleans, integers of 64 bits, finite floats, text, lists and dicts with text as keys, 200
    levels deep. Tuples come back as lists, other mappings as dicts, subclasses (enums of str and int too) as what
    they are based on, lone surrogates as U+FFFD.

    Writes shield themselves: a save that has begun is whole, also in the `finally` of a stopped handler, for at
    most the cleanup budget of the run. A write carries the fencing token of the run it is called from; the version
    from before a run's first write is kept until another run, or code outside of runs, writes.

    Each method raises ValueError for a user or session id that is none, BackendUnavailable if the place where
    things are kept cannot be reached, and writes `trio.TooSlowError` if the cleanup budget ended before them.
    """

    @abstractmethod
    async def save(self, user_id: str, session_id: str, state: Mapping[str, Any]) -> None:
        """Replace the state.

        Raises:
            StaleToken: a later run of this session has written already.
            TypeError: the state holds something that cannot be kept; nothing was written.
            StateTooLarge: the same, for its size.
        """

    @abstractmethod
    async def load(self, user_id: str, session_id: str) -> dict[str, Any] | None:
        """A copy of the state, None if there is none."""

    @abstractmethod
    async def delete(self, user_id: str, session_id: str) -> bool:
        """Forget the state; True if there was one. Fenced as `save` is."""

    @abstractmethod
    async def rollback(self, user_id: str, session_id: str, *, token: int) -> bool:
        """Undo everything that the run with fencing token `token` saved or deleted, True if there was something.

        The version from before its first write comes back, also if that was none. Nothing happens if the run wrote
        nothing, or somebody else has written since. Called in a run of the session, it is fenced as `save` is, and
        from then on refuses writes with a smaller token, so those that the undone run may still make.

        Raises:
            StaleToken: a later run than the caller's has written already.
        """

    async def aclose(self) -> None:
        """Release what the store holds."""
        await trio.lowlevel.checkpoint()


class SessionStore(ABC):
    """Keeps the chat history of each user and session, and the states of the objects that a handler works with.

    Fencing, shielding, ids and their errors are those of a StateStore. The history is bounded: past
    `MAX_MESSAGES` or `MAX_HISTORY_BYTES` (`trio_agentapp.stores`) the oldest turns are forgotten.
    """

    @abstractmethod
    async def append(
        self, user_id: str, session_id: str, messages: Sequence[Message], *, run_id: str, token: int
    ) -> None:
        """Add the messages of one run, as one turn. The same run again changes nothing. No messages: no turn.

        Raises:
            StaleToken: a later run of this session has written already.
            TypeError: something is no message, or holds what is not JSON; nothing was written.
        """

    @abstractmethod
    async def history(self, user_id: str, session_id: str, *, limit: int | None = None) -> list[Message]:
        """The messages, oldest first; with `limit` the last so many. Raises ValueError for one below 0."""

    @abstractmethod
    async def delete(self, user_id: str, session_id: str) -> bool:
        """Forget history and objects; True if there was anything."""

    @abstractmethod
    async def rollback(self, user_id: str, session_id: str, *, token: int) -> bool:
        """As `StateStore.rollback`: removes the messages that a run appended and undoes its saves of objects.

        Messages that it deleted do not come back.
        """

    @abstractmethod
    async def save_modules(self, user_id: str, session_id: str, states: Mapping[str, Any]) -> None:
        """Keep the states of objects by name, in place of those kept before. Errors as of `StateStore.save`."""

    @abstractmethod
    async def load_modules(self, user_id: str, session_id: str) -> dict[str, Any] | None:
        """What was kept, None if there is nothing."""

    def shield(self) -> AbstractAsyncContextManager[object]:
        """Around the making of states and their save: keeps a stop from cutting them. None by default."""
        return nullcontext()

    async def save_session_state(self, session_id: str, user_id: str = "", **modules: Any) -> None:
        """Keep `state_dict()` of each object, sync or async, under its name; they replace all that was kept.

        Without `user_id` it is the session's id, as for requests without one.

        Raises:
            TypeError: an object without `state_dict`. And what `save_modules` raises.
        """
        _check_methods(modules, "state_dict")
        async with self.shield():
            states = {name: await _result_of(module.state_dict()) for name, module in modules.items()}
            await self.save_modules(user_id or session_id, session_id, states)

    async def load_session_state(self, session_id: str, user_id: str = "", **modules: Any) -> None:
        """Hand each object what was kept under its name, by `load_state_dict(state)`, sync or async.

        Objects of which nothing is kept stay as they are.

        Raises:
            TypeError: an object without `load_state_dict`.
        """
        _check_methods(modules, "load_state_dict")
        states = await self.load_modules(user_id or session_id, session_id) or {}
        for name, module in modules.items():
            if name in states:
                await _result_of(module.load_state_dict(states[name]))

    async def aclose(self) -> None:
        """Release what the store holds."""
        await trio.lowlevel.checkpoint()


def _check_methods(modules: Mapping[str, Any], method: str) -> None:
    for name, module in modules.items():
        if not callable(getattr(module, method, None)):
            raise TypeError(f"{name}={type(module).__name__}(...) has no {method}()")


async def _result_of(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
