"""`invoke`: sends one message and prints the answer."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import ConfigurationError
from .exits import ExitCode
from .options import AsJson, Entrypoint, Query, Session, Target, Token, User, chosen
from .target import reached
from .terminal import as_typed, read_input, write_json

__all__ = ["invoke"]


def invoke(
    target: Target,
    message: Annotated[
        str | None, typer.Argument(help="The message; - reads it from the standard input.", show_default=False)
    ] = None,
    query: Query = None,
    entrypoint: Entrypoint = None,
    session: Session = None,
    user: User = None,
    token: Token = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Send one MESSAGE and print the answer as it comes; with --json the terminal response."""
    from .turn import Turn

    if (message is None) is (query is None):
        raise ConfigurationError("give one message, as MESSAGE or as --query TEXT; for a conversation use chat")
    message = message or query or ""
    message = read_input() if message == "-" else as_typed(message)
    with reached(chosen(target, entrypoint)) as url:
        turn = Turn(url=url, message=message, session_id=session, user_id=user, token=token, silent=as_json)
        outcome = turn.take()
    if as_json and outcome.response is not None:
        write_json(outcome.response)
    return outcome.code
