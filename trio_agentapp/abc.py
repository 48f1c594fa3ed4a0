"""The contracts: what a backend or a store must do, whoever wrote it.

`trio_agentapp.testing` puts any implementation, also a user's own, through the questions that follow from these
texts.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from enum import StrEnum
from typing import Any

import attrs
import trio

from .protocol.ids import SessionKey
from .protocol.lifecycle import Ending, RunRecord, RunState, SessionStatus
from .protocol.message import Message
from .protocol.timings import Timings

__all__ = [
    "BaseInterruptBackend",
    "Busy",
    "Claim",
    "Ended",
    "Granted",
    "Lease",
    "Renewal",
    "Resync",
    "SessionStore",
    "Signal",
    "StateStore",
    "StopAnswer",
    "StopOutcome",
    "StopSignal",
    "Taken",
]


@attrs.frozen(kw_only=True)
class Lease:
    """The right of one node to run one run of a session, from its claim to its finish.

    `nonce` is fresh for each claim that is meant as a new one, and repeated when its answer was lost.
    `token` is 0 as long as no answer is known.
    """

    key: SessionKey
    run_id: str
    node_id: str
    nonce: str
    token: int = 0


@attrs.frozen
class Granted:
    """The session is owned; `token` is greater than every earlier one of this session."""

    token: int


@attrs.frozen
class Busy:
    """Another run owns the session; `retry_after` seconds is when it makes sense to ask again."""

    run_id: str
    retry_after: float


@attrs.frozen
class Ended:
    """This run has its terminal state already: it was stopped before its start, or is over."""

    state: RunState
    reason: str | None


@attrs.frozen
class Taken:
    """The run id is that of another session's run: it cannot be this one's too."""


Claim = Granted | Busy | Ended | Taken


class Renewal(StrEnum):
    """Answer to the renewal of one lease."""

    OK = "ok"
    STOP = "stop"
    """Renewed; a stop was requested."""
    LOST = "lost"
    """Owned by another run, ended, or unknown: the body must end."""


class StopOutcome(StrEnum):
    ACCEPTED = "accepted"
    """The session's current run is being stopped (also when it was already)."""
    PENDING = "pending"
    """The named run has not claimed its session yet; it will end when it does."""
    ENDED = "ended"
    """The named run is over."""
    NOT_RUNNING = "not_running"
    """No run of the session runs; nothing was stored."""


@attrs.frozen(kw_only=True)
class StopAnswer:
    outcome: StopOutcome
    run_id: str | None = None
    state: RunState = RunState.IDLE
    """The run's state as the backend knows it; for NOT_RUNNING the session's last one."""
    node_id: str | None = None


@attrs.frozen
class StopSignal:
    """A stop was requested for the run that owns its session under `token`."""

    run_id: str
    token: int


@attrs.frozen
class Resync:
    """Signals may have been missed: everything that can be re-read must be."""


Signal = StopSignal | Resync


class BaseInterruptBackend(ABC):
    """Carries leases and stop signals between processes.

    Every operation is atomic and safe to repeat. What cannot be asked raises `BackendUnavailable`; nothing is
    assumed then. INTERRUPT-PROTOCOL states what must hold; the names S1 to L2 below are its guarantees.

    `timings` says how long leases last and when they are renewed; None: they do not end by themselves.
    """

    timings: Timings | None = None

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own what the backend needs running (connections, a reaper) until cancelled.

        Ready before any other operation is called, cancelled after all. What it raises before it is ready is a
        failure of the start. The default needs nothing.
        """
        task_status.started()
        await trio.sleep_forever()

    @property
    def trouble(self) -> str | None:
        """Why no runs can be started at present, for the readiness probe; None: they can."""
        return None

    @abstractmethod
    async def claim(self, lease: Lease) -> Claim:
        """Ask for the session of `lease`.

        At most one run of a session holds it (S1). A repeated claim with the same run, node and nonce gets the
        same token. A run that was stopped before (its tombstone) ends as STOPPED/stopped_before_start and gets
        `Ended`. A run id that names another session's run gets `Taken`. Tokens of a session only grow, also when
        its records have expired (S5).
        """

    @abstractmethod
    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        """Renew leases, in one round trip; one answer each, in order."""

    @abstractmethod
    async def request_stop(
        self, key: SessionKey | None, run_id: str | None = None, *, user_id: str | None = None
    ) -> StopAnswer:
        """Ask for the end of a session's current run, or of one named run.

        A stop affects only the run it was accepted for (S4): without `run_id` the run that owns the session now,
        and nothing is stored where none does; with it that run, also one still to claim (PENDING: a tombstone of
        60 s). With `key` None the run id alone names the run; one not seen yet is stopped when it claims, if its
        user is `user_id` or `user_id` is None. A run of another session or user is never touched: the
        answer is that for an unknown one. Repeating a stop changes nothing.

        Raises:
            ValueError: neither `key` nor `run_id` was given.
        """

    @abstractmethod
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        """Write the terminal state of a run and free its session.

        The first terminal state stays (S2): what is returned is the record that holds, which the caller adopts.
        A lease without a token (its claim's answer was lost) frees the session by node and nonce, and makes a
        claim still on its way end. Never touches a session that another run owns.
        """

    @abstractmethod
    async def run_status(self, run_id: str) -> RunRecord | None:
        """The record of a run, None if unknown or forgotten (10 min after its end)."""

    @abstractmethod
    async def status(self, key: SessionKey) -> SessionStatus:
        """State of a session: RUNNING if and only if its current run has no terminal state (S3)."""

    @abstractmethod
    async def listen(
        self,
        node_id: str,
        deliver: Callable[[Signal], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Deliver the signals for runs of `node_id` until cancelled; started once they would arrive.

        `deliver` is synchronous and does not raise. Signals only shorten waiting: they may be lost, and then a
        `Resync` follows as soon as that is known.
        """

    async def aclose(self) -> None:
        """Release what the backend holds; called once, after everything else."""
        await trio.lowlevel.checkpoint()


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
