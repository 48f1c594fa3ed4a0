"""Stores: where a handler keeps what the next turn needs, and where chat histories are.

`open_stores(url)` opens both kinds at one place. To read it in one sitting: `values` and `turns` (what can be
kept), `record` (versions and fences), `shelf` (the stores over any place), `memory`, `sqlite` and `redis` (the
places), `choice` (which one a URL means).
"""

from .choice import Stores, open_stores, stores_of
from .memory import MemorySessionStore, MemoryStateStore
from .turns import MAX_HISTORY_BYTES, MAX_MESSAGES
from .values import MAX_STATE_BYTES

__all__ = [
    "MAX_HISTORY_BYTES",
    "MAX_MESSAGES",
    "MAX_STATE_BYTES",
    "MemorySessionStore",
    "MemoryStateStore",
    "Stores",
    "open_stores",
    "stores_of",
]
