"""Sessions, runs and leases for the questions, with ids that nothing has used before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from ...abc import BaseInterruptBackend, Granted, Lease
from ...protocol.ids import SessionKey, new_run_id, new_session_id
from ...protocol.lifecycle import Cause, Ending
from ...runs import Run, current_run

__all__ = ["ENDED", "FAILED", "STOPPED", "acting", "fresh_lease", "fresh_session", "ids_of", "own"]

ENDED = Ending(cause=Cause.RETURNED)
FAILED = Ending(cause=Cause.EXCEPTION)
STOPPED = Ending(cause=Cause.STOPPED, stop_requested=True)


def fresh_session(user_id: str | None = None) -> SessionKey:
    return SessionKey(user_id or "user-" + new_session_id(), new_session_id())


def ids_of(key: SessionKey) -> tuple[str, str]:
    return key.user_id, key.session_id


def fresh_lease(key: SessionKey | None = None, *, run_id: str | None = None, node_id: str | None = None) -> Lease:
    return Lease(
        key=key or fresh_session(),
        run_id=run_id or new_run_id(),
        node_id=node_id or new_run_id(),
        nonce=new_run_id(),
    )


async def own(backend: BaseInterruptBackend, lease: Lease | None = None, *, after: str = "") -> Lease:
    """Claim a free session. Return the lease with its token. `after`: what has happened before, for the message."""
    lease = lease or fresh_lease()
    match await backend.claim(lease):
        case Granted(token):
            return attrs.evolve(lease, token=token)
        case other:
            before = f"after {after}, " if after else ""
            raise AssertionError(f"{before}the claim of a free session was answered with {other!r}")


@contextmanager
def acting(key: SessionKey, token: int | None) -> Iterator[None]:
    """Act as the handler of a run that owns the session `key` under `token`; None: change nothing."""
    if token is None:
        yield
        return
    run = Run(run_id=new_run_id(), key=key)
    run.token = token
    before = current_run.set(run)
    try:
        yield
    finally:
        current_run.reset(before)
