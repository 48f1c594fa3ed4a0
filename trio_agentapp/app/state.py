"""`app.state`: attributes that an app shares with its handlers."""

from __future__ import annotations

from typing import Any

from ..abc import SessionStore, StateStore

__all__ = ["AppState"]


class AppState:
    """Any attributes, set by the user: `app.state.model = model`, for instance in the lifespan.

    Two are set by the app: `state_service` keeps a state per user and session, `session_service` their histories.
    `session` is the same as `session_service` until it is set.
    """

    state_service: StateStore
    session_service: SessionStore
    session: Any

    def __init__(self, state_service: StateStore, session_service: SessionStore) -> None:
        self.state_service = state_service
        self.session_service = session_service

    def __getattr__(self, name: str) -> Any:
        # Python calls this only for attributes that are not set.
        if name == "session":
            return self.session_service
        known = ", ".join(sorted(vars(self)))
        raise AttributeError(f"app.state has no attribute {name!r}; it has {known}; set others in the lifespan")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
