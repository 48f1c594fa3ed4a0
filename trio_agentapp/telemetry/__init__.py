"""Logs and tracebacks for operators."""

from .logging import (
    LOG_FORMATS,
    JsonFormatter,
    LogFields,
    TextFormatter,
    configure_logging,
    format_handlers,
    levels_in,
)
from .tracebacks import is_library, traceback_text

__all__ = [
    "LOG_FORMATS",
    "JsonFormatter",
    "LogFields",
    "TextFormatter",
    "configure_logging",
    "format_handlers",
    "is_library",
    "levels_in",
    "traceback_text",
]
