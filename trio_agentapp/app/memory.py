"""Saves what a run adds to its session, and removes it when another run replaces the run."""

from __future__ import annotations

import attrs

from ..protocol.ids import SessionKey
from ..runs import Run
from .state import AppState

__all__ = ["Memory"]


@attrs.frozen
class Memory:
    """Uses the stores that the app has at the time of the call, because a lifespan may replace them."""

    state: AppState

    async def remember(self, run: Run) -> None:
        """Append the request's messages, and the answer as clients received it, to the session's history."""
        await self.state.session_service.append(
            run.user_id, run.session_id, [*run.asked, *run.builder.messages], run_id=run.run_id, token=run.token
        )

    async def undo(self, key: SessionKey, token: int) -> None:
        """Remove what the run with this fencing token has saved."""
        await self.state.state_service.rollback(key.user_id, key.session_id, token=token)
        await self.state.session_service.rollback(key.user_id, key.session_id, token=token)
