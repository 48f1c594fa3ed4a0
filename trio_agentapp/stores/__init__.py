"""Stores: they keep the states of sessions and chat histories.

`open_stores(url)` opens both kinds at one place. Read `values` and `turns` (what can be kept), `record` (versions
and fences), `shelf` (the stores over any place), `memory`, `sqlite` and `redis` (the places), `choice` (which one a
URL means).
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
