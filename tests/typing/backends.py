"""An interrupt backend, a state store, a history and an event store of the user's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from trio_agentapp import AgentApp, BaseInterruptBackend, Message, SessionStore, StateStore
from trio_agentapp.abc import (
    Claim,
    EventStore,
    Extent,
    Granted,
    Lease,
    Renewal,
    Signal,
    StopAnswer,
    StopOutcome,
)
from trio_agentapp.protocol.events import Event
from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.lifecycle import Ending, RunRecord, RunState, SessionStatus
from trio_agentapp.testing import check_event_store, check_interrupt_backend, check_state_store


class Backend(BaseInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        return Granted(token=1)

    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        return [Renewal.OK for _ in leases]

    async def request_stop(
        self, key: SessionKey | None, run_id: str | None = None, *, user_id: str | None = None
    ) -> StopAnswer:
        return StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)

    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        return RunRecord(run_id=lease.run_id, key=lease.key, state=ending.state, reason=ending.cause.value)

    async def run_status(self, run_id: str) -> RunRecord | None:
        return None

    async def status(self, key: SessionKey) -> SessionStatus:
        return SessionStatus(state=RunState.IDLE)

    async def listen(
        self,
        node_id: str,
        deliver: Callable[[Signal], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        task_status.started()
        await trio.sleep_forever()


class States(StateStore):
    async def save(self, user_id: str, session_id: str, state: Mapping[str, Any]) -> None: ...

    async def load(self, user_id: str, session_id: str) -> dict[str, Any] | None:
        return None

    async def delete(self, user_id: str, session_id: str) -> bool:
        return False

    async def rollback(self, user_id: str, session_id: str, *, token: int) -> bool:
        return False


class History(SessionStore):
    async def append(
        self, user_id: str, session_id: str, messages: Sequence[Message], *, run_id: str, token: int
    ) -> None: ...

    async def history(self, user_id: str, session_id: str, *, limit: int | None = None) -> list[Message]:
        return []

    async def delete(self, user_id: str, session_id: str) -> bool:
        return False

    async def rollback(self, user_id: str, session_id: str, *, token: int) -> bool:
        return False

    async def save_modules(self, user_id: str, session_id: str, states: Mapping[str, Any]) -> None: ...

    async def load_modules(self, user_id: str, session_id: str) -> dict[str, Any] | None:
        return None


class Events(EventStore):
    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None: ...

    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        return None

    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        return []


app = AgentApp(interrupt_backend=Backend(), event_store=Events())
app.state.state_service = States()
app.state.session_service = History()
app = AgentApp(event_store="redis", interrupt_redis_url="redis://localhost")


# What must not pass.


class Unfinished(BaseInterruptBackend):
    async def claim(self, lease: Lease) -> Claim:
        return Granted(token=1)


class Different(StateStore):
    async def save(self, user_id: str, state: Mapping[str, Any]) -> None: ...  # type: ignore[override]

    def load(self, user_id: str, session_id: str) -> dict[str, Any] | None: ...  # type: ignore[override]

    async def delete(self, user_id: str, session_id: str) -> bool:
        return False

    async def rollback(self, user_id: str, session_id: str, *, token: int) -> bool:
        return False


Unfinished()  # type: ignore[abstract]
Granted()  # type: ignore[call-arg]
Granted(1).token = 2  # type: ignore[misc]
app.state.state_service = History()  # type: ignore[assignment]


async def wrong_checks() -> None:
    await check_interrupt_backend(Backend())  # type: ignore[arg-type]
    await check_state_store(States)  # type: ignore[arg-type]
    await check_event_store(Events)  # type: ignore[arg-type]
    AgentApp(event_store=Events)  # type: ignore[arg-type]
