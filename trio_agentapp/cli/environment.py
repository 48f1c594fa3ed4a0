"""Reads environment variables from files; variables that are set already win."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ..errors import ConfigurationError

__all__ = ["before_env_file", "given_variables", "opened", "read_env_file", "variables_of"]

DEFAULT = Path(".env")
NUL = "a NUL byte, which no variable can hold; write the file as plain text"

_before: dict[str, str] = {}


def read_env_file(path: Path | None) -> None:
    """Set the variables of the file, by default of `.env`. Raises ConfigurationError if `path` cannot be read."""
    _before.update(os.environ)
    if path is None and not DEFAULT.is_file():
        return
    from dotenv import load_dotenv

    with opened(path or DEFAULT) as file:
        try:
            load_dotenv(stream=file, override=False)
        except ValueError:
            raise ConfigurationError(f"{path or DEFAULT} has {NUL}") from None


def variables_of(path: Path) -> dict[str, str]:
    """Return the variables of a file of NAME=VALUE lines. Raises ConfigurationError if it cannot be read."""
    from dotenv import dotenv_values

    with opened(path) as file:
        found = {name: value for name, value in dotenv_values(stream=file).items() if value is not None}
    if any("\0" in text for pair in found.items() for text in pair):
        raise ConfigurationError(f"{path} has {NUL}")
    return found


def given_variables(
    env_file: Path | None, pairs: Iterable[str] | None, config: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Join the environment of `--config`, `--env-file` and `--env`; the later ones win.

    Raises:
        ConfigurationError: a file cannot be read, or a pair has no name or no `=`. The message shows no pair: one
            without `=` may be a secret without its name.
    """
    split = [pair.partition("=") for pair in pairs or ()]
    if not all(name and equals for name, equals, _ in split):
        raise ConfigurationError("--env takes NAME=VALUE, and one has no name or no =")
    of_file = {} if env_file is None else variables_of(env_file)
    return {**(config or {}), **of_file, **{name: value for name, _, value in split}}


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Open a file that the user has named. Raises ConfigurationError if it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            yield file
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{path} cannot be read: {why}") from error


def before_env_file() -> dict[str, str]:
    """The environment without the variables of the file, for a process that reads the file itself."""
    return dict(_before)
