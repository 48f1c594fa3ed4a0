"""`chat`: a conversation in the terminal."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from ..errors import AgentAppError
from .exits import ExitCode, say
from .options import ClientCert, ClientKey, Entrypoint, Query, Session, Target, Token, User, chosen
from .target import Access, reached

__all__ = ["chat"]


def chat(
    target: Target,
    query: Query = None,
    entrypoint: Entrypoint = None,
    session: Session = None,
    user: User = None,
    token: Token = None,
    cert: ClientCert = None,
    key: ClientKey = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the whole log of an app that this command serves.")
    ] = False,
) -> ExitCode:
    """Talk to an agent. Ctrl-C stops its answer and shows the receipt; a second Ctrl-C or Ctrl-D exits."""
    from ..protocol.ids import new_session_id
    from .invoke import invoke
    from .turn import Turn

    if verbose:
        logging.getLogger().setLevel(logging.INFO)
    if query is not None:
        return invoke(
            target, query, entrypoint=entrypoint, session=session, user=user, token=token, cert=cert, key=key
        )
    session = session or new_session_id()
    access = Access(token, cert, key)
    terminal = sys.stdin.isatty()
    if terminal:
        import readline  # noqa: F401  makes lines editable
    try:
        with reached(chosen(target, entrypoint)) as url:
            _greet(url, access, session)
            while (message := _read("> " if terminal else "")) is not None:
                if not message.strip():
                    continue
                turn = Turn(
                    url=url,
                    message=message,
                    session_id=session,
                    user_id=user,
                    access=access,
                    aside=True,
                    answers=True,
                    patient=True,
                )
                try:
                    outcome = turn.take()
                except AgentAppError as error:
                    say(f"trio-agentapp: {error}")
                    if not terminal:
                        raise
                    continue
                if outcome.left:
                    return ExitCode.INTERRUPTED
    except KeyboardInterrupt:
        # At the prompt, or a third Ctrl-C while the served app is being stopped.
        say("")
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def _read(prompt: str) -> str | None:
    """Read a line; None at the end of the input."""
    try:
        return input(prompt)
    except EOFError:
        if prompt:
            say("")
        return None


def _greet(url: str, access: Access, session: str) -> None:
    """Check that the service answers, and print how to exit.

    Raises:
        AgentAppError: it does not answer.
    """
    import trio

    from .target import new_client

    async def ask() -> str:
        async with new_client(url, access) as client:
            return str((await client.health()).get("service", "the agent"))

    name = trio.run(ask)
    if sys.stdin.isatty():
        say(f"{name} at {url}, session {session}. Ctrl-C stops an answer, Ctrl-D exits.")
