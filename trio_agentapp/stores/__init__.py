"""Stores: they keep the states of sessions and chat histories.

`open_stores(url)` opens both kinds at one place. `values` and `turns` define what can be kept; `record` has
versions and fences; `shelf` makes both stores of any place; `memory`, `sqlite` and `redis` are the places; `choice`
finds the place of a URL.
"""

from .choice import Stores, open_stores, stores_of
from .memory import MemorySessionStore, MemoryStateStore
from .record import Record
from .shelf import Shelf, ShelvedSessions, ShelvedStates
from .turns import MAX_HISTORY_BYTES, MAX_MESSAGES, Turn, surplus
from .values import MAX_STATE_BYTES

__all__ = [
    "MAX_HISTORY_BYTES",
    "MAX_MESSAGES",
    "MAX_STATE_BYTES",
    "MemorySessionStore",
    "MemoryStateStore",
    "Record",
    "Shelf",
    "ShelvedSessions",
    "ShelvedStates",
    "Stores",
    "Turn",
    "open_stores",
    "stores_of",
    "surplus",
]
