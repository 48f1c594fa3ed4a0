"""`app.state`: attributes that an app shares with its handlers."""

from __future__ import annotations

from typing import Any

from ..abc import SessionStore, StateStore
from ..frameworks.stores import awaitable_here

__all__ = ["AppState"]


class AppState:
    """Holds any attributes that the user sets: `app.state.model = model`, for instance in the lifespan.

    Two are set by the app: `state_service` keeps a state per user and session, `session_service` their histories.
    `session` is the same as `session_service` until it is set.
    """

    session: Any

    def __init__(self, state_service: StateStore, session_service: SessionStore) -> None:
        self.state_service = state_service
        self.session_service = session_service

    # What handlers of frameworks may await, on the asyncio loop.

    @property
    def state_service(self) -> StateStore:
        return awaitable_here(self._state_service)

    @state_service.setter
    def state_service(self, store: StateStore) -> None:
        self._state_service = store

    @property
    def session_service(self) -> SessionStore:
        return awaitable_here(self._session_service)

    @session_service.setter
    def session_service(self, store: SessionStore) -> None:
        self._session_service = store

    def __getattr__(self, name: str) -> Any:
        # Python calls this only for attributes that are not set.
        if name == "session":
            return self.session_service
        known = ", ".join(sorted(attribute.removeprefix("_") for attribute in vars(self)))
        raise AttributeError(f"app.state has no attribute {name!r}; it has {known}; set others in the lifespan")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
