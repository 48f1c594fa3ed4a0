"""`chat`: a conversation in the terminal."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from ..errors import AgentAppError
from .exits import ExitCode, say
from .run import Entrypoint, chosen
from .target import deployments, reached

__all__ = ["Query", "Session", "Target", "Token", "User", "chat"]

Target = Annotated[
    str,
    typer.Argument(
        help="A URL, the id of a deployment, or an app (agent.py, a folder) that is served meanwhile.",
        autocompletion=deployments,
    ),
]
Session = Annotated[
    str | None,
    typer.Option("--session", "--session-id", help="Whose memory the agent has.  [default: a new one]"),
]
User = Annotated[
    str | None, typer.Option("--user", "--user-id", help="Whose session it is.  [default: the session's id]")
]
Query = Annotated[str | None, typer.Option("--query", "-q", help="Say this, print the answer, and leave.")]
Token = Annotated[
    str | None, typer.Option(envvar="AGENTAPP_TOKEN", help="Sent as Authorization: Bearer.", show_envvar=True)
]


def chat(
    target: Target,
    query: Query = None,
    entrypoint: Entrypoint = None,
    session: Session = None,
    user: User = None,
    token: Token = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the whole log of an app that is served meanwhile.")
    ] = False,
) -> ExitCode:
    """Talk to an agent. Ctrl-C stops its answer and shows the receipt; the second one leaves, as Ctrl-D does."""
    from ..protocol.ids import new_session_id
    from .invoke import invoke
    from .turn import Turn

    if verbose:
        logging.getLogger().setLevel(logging.INFO)
    if query is not None:
        return invoke(target, query, entrypoint=entrypoint, session=session, user=user, token=token)
    session = session or new_session_id()
    terminal = sys.stdin.isatty()
    if terminal:
        import readline  # noqa: F401  so that lines can be edited
    try:
        with reached(chosen(target, entrypoint)) as url:
            _greet(url, token, session)
            while (words := _read("> " if terminal else "")) is not None:
                if not words.strip():
                    continue
                turn = Turn(
                    url=url, message=words, session_id=session, user_id=user, token=token, aside=True, patient=True
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
        # At the prompt, or a third one while what was started is being ended.
        say("")
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def _read(prompt: str) -> str | None:
    """A line; None at the end of the input."""
    try:
        return input(prompt)
    except EOFError:
        if prompt:
            say("")
        return None


def _greet(url: str, token: str | None, session: str) -> None:
    """Find out whether somebody is there, and say how to leave.

    Raises:
        AgentAppError: nobody is.
    """
    import trio

    from .target import new_client

    async def ask() -> str:
        async with new_client(url, token) as client:
            return str((await client.health()).get("service", "the agent"))

    name = trio.run(ask)
    if sys.stdin.isatty():
        say(f"{name} at {url}, session {session}. Ctrl-C stops an answer, Ctrl-D leaves.")
