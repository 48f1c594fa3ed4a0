"""Logs and tracebacks for operators."""

from .logging import LOG_FORMATS, JsonFormatter, LogFields, TextFormatter, configure_logging, format_handlers
from .tracebacks import is_library, traceback_text

__all__ = [
    "LOG_FORMATS",
    "JsonFormatter",
    "LogFields",
    "TextFormatter",
    "configure_logging",
    "format_handlers",
    "is_library",
    "traceback_text",
]
