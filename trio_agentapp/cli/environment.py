"""Variables from a file `.env`; those that are set already win."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigurationError

__all__ = ["before_env_file", "read_env_file"]

DEFAULT = Path(".env")

_before: dict[str, str] = {}


def read_env_file(path: Path | None) -> None:
    """Raises ConfigurationError: a file that was named cannot be read."""
    _before.update(os.environ)
    if path is None and not DEFAULT.is_file():
        return
    from dotenv import load_dotenv

    try:
        with open(path or DEFAULT, encoding="utf-8") as file:
            load_dotenv(stream=file, override=False)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{path or DEFAULT} cannot be read: {why}") from error


def before_env_file() -> dict[str, str]:
    """The environment without what the file added: for a process that reads the file, perhaps a newer one."""
    return dict(_before)
