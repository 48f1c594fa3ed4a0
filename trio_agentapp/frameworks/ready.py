"""A ready agent, `AgentApp(agent=...)`, as a handler for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from ..abc import SessionStore
from ..abc.frameworks import FrameworkAdapter
from ..errors import StateTooLarge
from .asyncio_run import AsyncioRun
from .forgotten_turns import report_forgotten
from .items import current_items

__all__ = ["handler_of_agent"]

NAME = "agent"
"""Under this name a session has the state of its agent."""


def handler_of_agent(
    agent: Any, adapter: FrameworkAdapter, sessions_of: Callable[[], SessionStore]
) -> Callable[..., AsyncIterator[Any]]:
    """A handler that runs a copy of `agent`: the state of the session is loaded before, and saved after, each run.

    It is saved also after a stop or an error. A state that is too large for the store is not saved: the answer is
    delivered, followed by an error message, and the next run continues from the state before.

    Raises:
        ConfigurationError: the adapter cannot run this agent.
    """
    adapter.open_agent(agent, None, user_id="", session_id="")

    async def answer(msgs: Any, run: AsyncioRun) -> AsyncIterator[Any]:
        sessions = sessions_of()
        states = await sessions.load_modules(run.user_id, run.session_id) or {}
        copy = adapter.open_agent(agent, states.get(NAME), user_id=run.user_id, session_id=run.session_id)
        try:
            async with aclosing(copy.stream(msgs)) as items:  # type: ignore[type-var]  # an asynchronous generator
                async for item in items:
                    yield item
        finally:
            state = await copy.state()
            # A checkpointer may have saved something meanwhile, or may have had to forget the turn.
            if not current_items.get().forgotten:
                states = await sessions.load_modules(run.user_id, run.session_id) or {}
                try:
                    await sessions.save_modules(run.user_id, run.session_id, {**states, NAME: state})
                except StateTooLarge as error:
                    await report_forgotten(run.session_id, error)

    answer.__qualname__ = type(agent).__qualname__
    return answer
