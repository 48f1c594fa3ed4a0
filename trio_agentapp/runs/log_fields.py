"""What log records say of the work they belong to: request, run, session and node.

A context variable, so that the records of a handler's own code, of its tasks and of its threads have them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

__all__ = ["LOG_FIELDS", "add_log_fields", "log_fields"]

LOG_FIELDS = ("node_id", "request_id", "run_id", "session_id")

_fields: ContextVar[Mapping[str, str]] = ContextVar("trio_agentapp_log_fields", default=MappingProxyType({}))


def log_fields() -> Mapping[str, str]:
    """The fields that are known here."""
    return _fields.get()


def add_log_fields(**fields: str) -> None:
    """Give them to all further records of this task, and of what it starts from here on."""
    _fields.set({**_fields.get(), **fields})
