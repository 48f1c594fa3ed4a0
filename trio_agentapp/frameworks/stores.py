"""Makes the stores of the app, which run on Trio, awaitable in asyncio handlers."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, TypeVar

from ..abc import SessionStore, StateStore
from .bridge import Bridge, bridge_here

__all__ = ["awaitable_here"]

Store = TypeVar("Store", StateStore, SessionStore)


def awaitable_here(store: Store) -> Store:
    """Return `store`; on the asyncio loop of an app, a wrapper whose methods are awaited on that loop."""
    bridge = bridge_here()
    if bridge is None:
        return store
    kind = _Sessions if hasattr(store, "load_session_state") else _Awaited
    return kind(store, bridge)  # type: ignore[return-value]  # it has the methods


class _Awaited:
    """Wraps a store. Its coroutine methods are awaited on the asyncio loop, and executed by Trio."""

    def __init__(self, store: Any, bridge: Bridge) -> None:
        self._store = store
        self._bridge = bridge

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._store, name)
        if not inspect.iscoroutinefunction(member):
            return member
        return lambda *args, **options: self._bridge.await_trio(partial(member, *args, **options))


class _Sessions(_Awaited):
    """Wraps a session store. The objects whose states it saves belong to the loop, so it calls them there."""

    load_session_state: Any = SessionStore.load_session_state
    save_session_state: Any = SessionStore.save_session_state
    shield: Any = SessionStore.shield
