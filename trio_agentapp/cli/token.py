"""`token`: make a key for a client of a guarded app."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ..errors import ConfigurationError
from .exits import ExitCode, say
from .terminal import write

__all__ = ["token"]


def token(
    user: Annotated[str, typer.Argument(help="The user that the key stands for.")],
    name: Annotated[
        str | None, typer.Option(help="A name for the key, unique in its file.  [default: USER]")
    ] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A scope of the key; may be repeated.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="A date or time such as 2030-01-31, or days from now such as 90d.")
    ] = None,
) -> ExitCode:
    """Make a key for BearerTokens. The key goes to stderr, once; the line for the file of keys to stdout."""
    from ..auth.keys import KeyRecord, hash_of, line_of, new_key, parse_keys

    key = new_key()
    record = KeyRecord(
        name=name or user, user=user, sha256=hash_of(key), scopes=tuple(scope or ()), expires=_expiry(expires)
    )
    line = line_of(record)
    try:
        parse_keys(line.encode())
    except ConfigurationError as error:
        raise ConfigurationError(str(error).replace("line 1", "the key", 1)) from error
    say(f"The key, which is shown only now: {key}")
    write(line)
    return ExitCode.OK


def _expiry(text: str | None) -> datetime | None:
    from ..auth.keys import parse_expiry

    if text is None:
        return None
    try:
        if text.endswith("d") and text[:-1].isdecimal():
            moment = datetime.now(UTC) + timedelta(days=int(text[:-1]))
        else:
            moment = parse_expiry(text)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"--expires {text}: give a date such as 2030-01-31, or days such as 90d"
        ) from error
    if moment <= datetime.now(UTC):
        raise ConfigurationError(f"--expires {text} is in the past")
    return moment
