"""The fields of log records that name the request, run, session and node they belong to.

They are in a context variable, so log records of a handler, its tasks and its threads have them, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Context, ContextVar
from types import MappingProxyType

__all__ = ["LOG_FIELDS", "add_log_fields", "log_fields", "log_fields_of"]

LOG_FIELDS = ("node_id", "request_id", "run_id", "session_hash", "trace_id")
"""`session_hash` is `SessionKey.digest`. A session id is not logged: a client may have put a name into it."""

_fields: ContextVar[Mapping[str, str]] = ContextVar("trio_agentapp_log_fields", default=MappingProxyType({}))


def log_fields() -> Mapping[str, str]:
    """Return the fields of the current context."""
    return _fields.get()


def log_fields_of(context: Context) -> Mapping[str, str]:
    """Return the fields of another context, such as that of a task that runs in another thread right now."""
    return context.get(_fields) or {}


def add_log_fields(**fields: str) -> None:
    """Add fields to the further records of this task, and of the tasks that it starts from here on."""
    _fields.set({**_fields.get(), **fields})
