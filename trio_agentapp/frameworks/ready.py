"""Makes an asyncio handler from a ready agent, `AgentApp(agent=...)`."""

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
"""The name under which the agent's state is stored in a session's state."""


def handler_of_agent(
    agent: Any, adapter: FrameworkAdapter, sessions_of: Callable[[], SessionStore]
) -> Callable[..., AsyncIterator[Any]]:
    """Return a handler that runs a copy of `agent`. It loads the session's state before a run, and saves it after.

    The state is also saved after a stop or an error. A state that is too large for the store is not saved: the
    client gets an error message after the answer, and the next run continues from the previous state.

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
            # A checkpointer may have changed the session during the run, so it is loaded again. If the checkpointer
            # could not save the turn, the agent's state is not saved either.
            if not current_items.get().forgotten:
                states = await sessions.load_modules(run.user_id, run.session_id) or {}
                try:
                    await sessions.save_modules(run.user_id, run.session_id, {**states, NAME: state})
                except StateTooLarge as error:
                    await report_forgotten(run.session_id, error)

    answer.__qualname__ = type(agent).__qualname__
    return answer
