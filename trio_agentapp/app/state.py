"""`app.state`: attributes that an app shares with its handlers."""

from __future__ import annotations

from typing import Any

from ..abc import SessionStore, StateStore

__all__ = ["AppState"]


class AppState:
    """A plain place for attributes.

    `state_service` keeps a state per user and session, `session_service` their chat histories; `session` is the
    latter, too, until it is set to something else.

    Put what the lifespan opens here: `app.state.model = model`.
    """

    state_service: StateStore
    session_service: SessionStore
    session: Any

    def __init__(self, state_service: StateStore, session_service: SessionStore) -> None:
        self.state_service = state_service
        self.session_service = session_service

    def __getattr__(self, name: str) -> Any:
        # Only asked for what was not set.
        if name == "session":
            return self.session_service
        known = ", ".join(sorted(vars(self)))
        raise AttributeError(f"app.state has no attribute {name!r}; it has {known}; set others in the lifespan")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
