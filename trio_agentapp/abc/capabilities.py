"""Optional parts of an interrupt backend. A backend has those that it names as further base classes.

    class MyBackend(BaseInterruptBackend, RunListing): ...

Without a part, requests that need it are answered with 501 `not_offered`; without `RunWakeups`, waiting tasks poll.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import ClassVar, Self

from ..errors import NotOffered
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import RunRecord
from .interrupt_answers import InputAnswer
from .interrupts import BaseInterruptBackend
from .lease import Lease

__all__ = ["Capability", "IdempotencyKeys", "QuestionBoard", "RunInbox", "RunListing", "RunWakeups", "watching"]


class Capability(ABC):
    """One optional part. `missing` is the text of the error for a request that needs it."""

    missing: ClassVar[str]

    @classmethod
    def of(cls, backend: BaseInterruptBackend) -> Self | None:
        """Return `backend` as this part, or None if it does not offer it."""
        part: object = backend  # mypy finds no common subclass of a class and a Self
        return part if isinstance(part, cls) and backend.offers(cls) else None

    @classmethod
    def needed_from(cls, backend: BaseInterruptBackend) -> Self:
        """Return `backend` as this part.

        Raises:
            NotOffered: the backend does not offer it.
        """
        if (part := cls.of(backend)) is None:
            raise NotOffered(cls.missing)
        return part


class RunListing(Capability):
    """Lists the runs of a user: `GET /runs`."""

    missing = "The interrupt backend of this app does not list runs."

    @abstractmethod
    async def list_runs(
        self, user_id: str, *, before: str | None = None, limit: int = 100
    ) -> tuple[Sequence[RunRecord], str | None]:
        """Return a page of a user's runs, the newest first, and `before` for the next page; None: no more pages.

        Runs that were forgotten, and runs that never started, are left out.
        """


class RunInbox(Capability):
    """Keeps messages for a run that runs on another node: `POST /runs/{id}/input`."""

    missing = "The interrupt backend of this app does not carry input to other nodes."

    @abstractmethod
    async def send_input(self, key: SessionKey, run_id: str, message: bytes) -> InputAnswer:
        """Put a message into the inbox of a run, and send an `InputSignal` to its node.

        An inbox holds `MAX_INPUT` messages. Only a running run has one.
        """

    @abstractmethod
    async def take_input(self, lease: Lease, received: int) -> Sequence[bytes]:
        """Return the messages after the first `received` ones, in order, and delete those before.

        A caller that lost the answer passes the same number again, and gets the same messages. A lease that does
        not own the session gets none.
        """


class QuestionBoard(Capability):
    """Keeps the open questions of runs where every node reads them: `GET /questions`."""

    missing = "The interrupt backend of this app does not carry questions to other nodes."

    @abstractmethod
    async def post_questions(self, lease: Lease, questions: bytes) -> None:
        """Replace the questions in the record of a running run; `b""` if none is open.

        They are in the `RunRecord` from `run_status` and `list_runs` until the run ends. A lease that does not own
        the session changes nothing.
        """


class IdempotencyKeys(Capability):
    """Remembers the request that first used an Idempotency-Key."""

    missing = "The interrupt backend of this app does not keep idempotency keys."

    @abstractmethod
    async def pin(self, name: str, value: str) -> str:
        """Store `value` under `name`, unless that has a value.

        Return the stored value, which is kept for an hour at least.
        """

    @abstractmethod
    async def unpin(self, name: str, value: str) -> None:
        """Delete the value of `name` if it is `value`."""


class RunWakeups(Capability):
    """Reports changes of runs to tasks that would otherwise poll."""

    missing = "The interrupt backend of this app does not report changes of runs."

    @abstractmethod
    def watching(self, key: SessionKey, wake: Callable[[str], object]) -> AbstractAsyncContextManager[None]:
        """Inside this block, call `wake(run_id)` when a run of the session has ended or written events.

        Calls only shorten the time until the next poll. They may be lost, without notice.
        """


def watching(
    backend: BaseInterruptBackend, key: SessionKey, wake: Callable[[str], object]
) -> AbstractAsyncContextManager[None]:
    """Return `RunWakeups.watching` of `backend`; a block that never calls `wake` if it offers no wake-ups."""
    wakeups = RunWakeups.of(backend)
    return nullcontext() if wakeups is None else wakeups.watching(key, wake)
