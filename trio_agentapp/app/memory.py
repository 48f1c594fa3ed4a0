"""What is kept of a run for the next turn of its session, and what is undone when another takes its place."""

from __future__ import annotations

import attrs

from ..protocol.ids import SessionKey
from ..runs import Run
from .state import AppState

__all__ = ["Memory"]


@attrs.frozen
class Memory:
    """Over the stores that the app has when it is asked: a lifespan may put others in their place."""

    state: AppState

    async def remember(self, run: Run) -> None:
        """Append what was asked, and what clients saw of the answer, to the history of the session."""
        await self.state.session_service.append(
            run.user_id, run.session_id, [*run.asked, *run.builder.messages], run_id=run.run_id, token=run.token
        )

    async def undo(self, key: SessionKey, token: int) -> None:
        """Undo what the run with this token has left behind."""
        await self.state.state_service.rollback(key.user_id, key.session_id, token=token)
        await self.state.session_service.rollback(key.user_id, key.session_id, token=token)
