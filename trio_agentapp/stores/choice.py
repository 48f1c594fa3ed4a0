"""Chooses the stores for a `state_url`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import attrs

from ..abc import SessionStore, StateStore
from ..errors import ConfigurationError
from ..protocol.text import masked_url
from .memory import MemorySessionStore, MemoryStateStore
from .shelf import Shelf, ShelvedSessions, ShelvedStates

__all__ = ["Stores", "open_stores", "stores_of"]

FORMS = "sqlite:///file, sqlite:////folder/file, or redis://host"


@attrs.frozen
class Stores:
    """The state store and the session store of one place.

    Use them inside `async with stores.open()`, which may be entered again.

    `open()` raises ConfigurationError if the place cannot work, and BackendUnavailable if it cannot be reached.
    """

    states: StateStore
    sessions: SessionStore
    open: Callable[[], AbstractAsyncContextManager[None]]


def stores_of(url: str | None, *, prefix: str = "agentapp", alone: bool = True) -> Stores:
    """Return the stores for a `state_url`; None: in memory. `prefix` is that of all keys in Redis.

    With `alone=False` other nodes may serve the same sessions, so stores in memory log a warning.

    Raises:
        ConfigurationError: the URL has an unknown scheme.
    """
    if url is None:
        return Stores(MemoryStateStore(alone=alone), MemorySessionStore(), nullcontext)
    # Import each module only if it is needed: an app on one node needs no Redis client.
    if url.startswith("sqlite:"):
        from .sqlite import Database

        database = Database(url)
        return _over(database.shelf, database.open)
    scheme = url.partition("://")[0]
    if scheme in ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"):
        from .redis import RedisPlace

        place = RedisPlace(url, prefix=prefix)
        return _over(place.shelf, place.open)
    raise ConfigurationError(f"state_url must be {FORMS}; not {masked_url(url)!r}")


def _over(shelf: Callable[[str], Shelf], open: Callable[[], AbstractAsyncContextManager[None]]) -> Stores:
    return Stores(ShelvedStates(shelf("state")), ShelvedSessions(shelf("session")), open)


@asynccontextmanager
async def open_stores(url: str | None = None, *, prefix: str = "agentapp") -> AsyncIterator[Stores]:
    """Open the stores of an app without the app, for scripts and tests.

    async with open_stores("sqlite:///chats.db") as stores:
        print(await stores.sessions.history("ann", "chat-1"))
    """
    stores = stores_of(url, prefix=prefix)
    async with stores.open():
        yield stores
