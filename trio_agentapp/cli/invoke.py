"""`invoke`: sends one message and prints the answer."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import ConfigurationError
from .exits import ExitCode
from .options import AsJson, ClientCert, ClientKey, Entrypoint, Query, Session, Target, Token, User, chosen
from .target import Access, reached
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
    cert: ClientCert = None,
    key: ClientKey = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Send one MESSAGE and print the answer as it comes; with --json the terminal response."""
    from .turn import Turn

    if (message is None) is (query is None):
        raise ConfigurationError("give one message, as MESSAGE or as --query TEXT; for a conversation use chat")
    message = message or query or ""
    message = read_input() if message == "-" else as_typed(message)
    if not message.strip():
        raise ConfigurationError("the message is empty; give a text as MESSAGE, or - to read the standard input")
    with reached(chosen(target, entrypoint)) as url:
        access = Access(token, cert, key)
        turn = Turn(url=url, message=message, session_id=session, user_id=user, access=access, silent=as_json)
        outcome = turn.take()
    if as_json and outcome.response is not None:
        write_json(outcome.response)
    return outcome.code
