"""The contracts of stores that keep data between the turns of a session: its state, and its history."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import trio

from ..protocol.message import Message

__all__ = ["SessionStore", "StateStore"]


class StateStore(ABC):
    """Keeps one state for each user and session: a mapping of JSON-like values, saved and loaded as a whole.

    To keep states at another place, do not write a whole store. Subclass `trio_agentapp.stores.Shelf`, which has
    five methods over bytes, and wrap it with `ShelvedStates` or `ShelvedSessions`. These fulfil the rest of this
    contract.

    Values: None, booleans, integers of 64 bits, finite floats, text, and lists and dicts of these, up to 200 levels
    deep. Keys are text. Tuples come back as lists, other mappings as dicts, subclasses (also enums of str and int)
    as their base types, and lone surrogates as U+FFFD.

    Stops: a write shields itself. A save that has begun is completed, also in the `finally` of a stopped handler,
    for the cleanup budget of the run at most; then it raises `trio.TooSlowError`.

    Fencing: a write carries the fencing token of the run that calls it. A write with a smaller token than an
    earlier one raises StaleToken, so a run that lost its session cannot overwrite the state of its successor. The
    version from before a run's first write is kept for `rollback`, until another run, or code outside of runs,
    writes.

    Each method raises ValueError for an invalid user or session id, and BackendUnavailable if the place cannot be
    reached.
    """

    @abstractmethod
    async def save(self, user_id: str, session_id: str, state: Mapping[str, Any]) -> None:
        """Replace the state.

        Raises:
            StaleToken: a later run of this session has written already.
            TypeError: the state contains a value that cannot be kept; nothing was written.
            StateTooLarge: the state is too large; nothing was written.
        """

    @abstractmethod
    async def load(self, user_id: str, session_id: str) -> dict[str, Any] | None:
        """Return a copy of the state; None if there is none."""

    @abstractmethod
    async def delete(self, user_id: str, session_id: str) -> bool:
        """Delete the state. Return True if there was one. Raises StaleToken as `save` does."""

    @abstractmethod
    async def rollback(self, user_id: str, session_id: str, *, token: int) -> bool:
        """Undo all writes of the run with fencing token `token`. Return True if there were any.

        The version from before its first write is restored, also if there was none. Nothing happens if the run
        wrote nothing, or if another writer has written since. If a run of the session calls it, later writes with a
        smaller token are refused, so the undone run cannot write again.

        Raises:
            StaleToken: a later run than the caller's has written already.
        """

    async def aclose(self) -> None:
        """Release resources."""
        await trio.lowlevel.checkpoint()


class SessionStore(ABC):
    """Keeps the chat history of each user and session, and the states of a handler's objects.

    Fencing, shielding, ids and errors are those of a StateStore. Beyond `MAX_MESSAGES` or `MAX_HISTORY_BYTES`
    (`trio_agentapp.stores`) the oldest turns are forgotten.
    """

    @abstractmethod
    async def append(
        self, user_id: str, session_id: str, messages: Sequence[Message], *, run_id: str, token: int
    ) -> None:
        """Add the messages of one run as one turn. A second call of the run, or one without messages, does nothing.

        Raises:
            StaleToken: a later run of this session has written already.
            TypeError: an item is not a message, or contains a value that is not JSON; nothing was written.
        """

    @abstractmethod
    async def history(self, user_id: str, session_id: str, *, limit: int | None = None) -> list[Message]:
        """Return the messages, oldest first; with `limit` only the last ones. Raises ValueError below 0."""

    @abstractmethod
    async def delete(self, user_id: str, session_id: str) -> bool:
        """Delete history and objects. Return True if there were any."""

    @abstractmethod
    async def rollback(self, user_id: str, session_id: str, *, token: int) -> bool:
        """Remove the messages that a run appended, and undo its saves of objects. See `StateStore.rollback`.

        Messages that the run deleted are not restored.
        """

    @abstractmethod
    async def save_modules(self, user_id: str, session_id: str, states: Mapping[str, Any]) -> None:
        """Replace the states of objects, by name. Raises the errors of `StateStore.save`."""

    @abstractmethod
    async def load_modules(self, user_id: str, session_id: str) -> dict[str, Any] | None:
        """Return the states of objects, by name; None if there are none."""

    def shield(self) -> AbstractAsyncContextManager[object]:
        """Return a block in which a stop does not interrupt making and saving states. No protection by default."""
        return nullcontext()

    async def save_session_state(self, session_id: str, user_id: str = "", **modules: Any) -> None:
        """Save what each object returns from `state_dict()`, or else `save_state()`, under its name.

        Both may be sync or async. Earlier states are replaced. Without `user_id` the session id is used, as for
        requests without a user.

        Raises:
            TypeError: an object has neither. `save_modules` may raise other errors.
        """
        savers = _methods_of(modules, "state_dict", "save_state")
        async with self.shield():
            states = {name: await _result_of(save()) for name, save in savers.items()}
            await self.save_modules(user_id or session_id, session_id, states)

    async def load_session_state(self, session_id: str, user_id: str = "", **modules: Any) -> None:
        """Call `load_state_dict`, or else `load_state`, of each object with the state saved under its name.

        Both may be sync or async. Objects without a saved state are left unchanged.

        Raises:
            TypeError: an object has neither.
        """
        loaders = _methods_of(modules, "load_state_dict", "load_state")
        states = await self.load_modules(user_id or session_id, session_id) or {}
        for name, load in loaders.items():
            if name in states:
                await _result_of(load(states[name]))

    async def aclose(self) -> None:
        """Release resources."""
        await trio.lowlevel.checkpoint()


def _methods_of(modules: Mapping[str, Any], *names: str) -> dict[str, Callable[..., Any]]:
    """Return the first method of `names` that each object has.

    The names are those of agentscope, PyTorch and AutoGen.
    """
    found: dict[str, Callable[..., Any]] = {}
    for name, module in modules.items():
        methods = [method for each in names if callable(method := getattr(module, each, None))]
        if not methods:
            raise TypeError(f"{name}={type(module).__name__}(...) has no {names[0]}() and no {names[1]}()")
        found[name] = methods[0]
    return found


async def _result_of(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
