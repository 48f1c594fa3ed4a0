"""Variables from a file `.env`; those that are set already win."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ..errors import ConfigurationError

__all__ = ["before_env_file", "opened", "read_env_file", "variables_of"]

DEFAULT = Path(".env")

_before: dict[str, str] = {}


def read_env_file(path: Path | None) -> None:
    """Raises ConfigurationError: a file that was named cannot be read."""
    _before.update(os.environ)
    if path is None and not DEFAULT.is_file():
        return
    from dotenv import load_dotenv

    with opened(path or DEFAULT) as file:
        load_dotenv(stream=file, override=False)


def variables_of(path: Path) -> dict[str, str]:
    """What a file of NAME=VALUE lines sets. Raises ConfigurationError: it cannot be read."""
    from dotenv import dotenv_values

    with opened(path) as file:
        return {name: value for name, value in dotenv_values(stream=file).items() if value is not None}


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """A file that the user named, to be read within. Raises ConfigurationError: it cannot be."""
    try:
        with open(path, encoding="utf-8") as file:
            yield file
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{path} cannot be read: {why}") from error


def before_env_file() -> dict[str, str]:
    """The environment without what the file added: for a process that reads the file, perhaps a newer one."""
    return dict(_before)
