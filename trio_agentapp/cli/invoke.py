"""`invoke`: one message, one answer."""

from __future__ import annotations

from typing import Annotated

import typer

from .chat import Session, Target, Token, User
from .exits import ExitCode
from .target import reached
from .terminal import as_typed, read_input, write_json

__all__ = ["AsJson", "invoke"]

AsJson = Annotated[bool, typer.Option("--json", help="For scripts: JSON on stdout, and nothing else.")]


def invoke(
    target: Target,
    message: Annotated[str, typer.Argument(help="What to say; - reads it from the standard input.")],
    session: Session = None,
    user: User = None,
    token: Token = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Send one MESSAGE and print the answer as it comes; with --json the terminal response."""
    from .turn import Turn

    message = read_input() if message == "-" else as_typed(message)
    with reached(target) as url:
        turn = Turn(url=url, message=message, session_id=session, user_id=user, token=token, silent=as_json)
        outcome = turn.take()
    if as_json and outcome.response is not None:
        write_json(outcome.response)
    return outcome.code
