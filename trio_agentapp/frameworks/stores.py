"""Makes the stores of the app, which run on Trio, awaitable on the asyncio loop of handlers."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, TypeVar

from ..abc import SessionStore, StateStore
from .bridge import Bridge, bridge_here

__all__ = ["awaitable_here"]

Store = TypeVar("Store", StateStore, SessionStore)


def awaitable_here(store: Store) -> Store:
    """`store`, or on the asyncio loop of an app an object with the same methods that are awaited there."""
    bridge = bridge_here()
    if bridge is None:
        return store
    kind = _Sessions if hasattr(store, "load_session_state") else _Awaited
    return kind(store, bridge)  # type: ignore[return-value]  # it has the methods


class _Awaited:
    """A store whose coroutine methods are awaited on the asyncio loop. Trio executes them."""

    def __init__(self, store: Any, bridge: Bridge) -> None:
        self._store = store
        self._bridge = bridge

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._store, name)
        if not inspect.iscoroutinefunction(member):
            return member
        return lambda *args, **options: self._bridge.await_trio(partial(member, *args, **options))


class _Sessions(_Awaited):
    """The objects whose states are saved belong to the loop, so their methods are called there."""

    load_session_state: Any = SessionStore.load_session_state
    save_session_state: Any = SessionStore.save_session_state
    shield: Any = SessionStore.shield
