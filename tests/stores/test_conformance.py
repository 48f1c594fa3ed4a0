"""The questions of the contracts: every store has the answers, also as two nodes that share a place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import pytest
import trio

from trio_agentapp.abc import SessionStore, StateStore
from trio_agentapp.errors import StateTooLarge
from trio_agentapp.stores import MAX_STATE_BYTES, MemorySessionStore, MemoryStateStore, Stores
from trio_agentapp.testing import (
    ask_store,
    check_session_store,
    check_state_store,
    session_questions,
    state_questions,
)

from .conftest import InTurn, Place

STATES = {question.__name__: question for question in state_questions()}
SESSIONS = {question.__name__: question for question in session_questions()}


@pytest.mark.parametrize("question", STATES)
async def test_states(place: Place, question: str) -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[StateStore]:
        async with place.open() as [stores]:
            yield stores.states

    await ask_store(make, STATES[question])


@pytest.mark.parametrize("question", SESSIONS)
async def test_sessions(place: Place, question: str) -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[SessionStore]:
        async with place.open() as [stores]:
            yield stores.sessions

    await ask_store(make, SESSIONS[question])


async def test_states_of_two_nodes(shared_place: Place) -> None:
    async with shared_place.open(nodes=2) as nodes:
        await check_state_store(lambda: nullcontext(InTurn([node.states for node in nodes])))


async def test_sessions_of_two_nodes(shared_place: Place) -> None:
    async with shared_place.open(nodes=2) as nodes:
        await check_session_store(lambda: nullcontext(InTurn([node.sessions for node in nodes])))


async def test_a_state_has_a_size(stores: Stores) -> None:
    fits = {"text": "x" * (MAX_STATE_BYTES - len('{"text":""}'))}
    await stores.states.save("ann", "chat", fits)
    assert await stores.states.load("ann", "chat") == fits
    for save in (stores.states.save, stores.sessions.save_modules):
        with pytest.raises(StateTooLarge, match=r"4,194,305 bytes as JSON; at most 4,194,304"):
            await save("ann", "chat", {"text": fits["text"] + "x"})
    assert await stores.states.load("ann", "chat") == fits
    assert await stores.sessions.load_modules("ann", "chat") is None


async def test_all_questions_on_a_virtual_clock(autojump_clock: trio.testing.MockClock) -> None:
    await check_state_store(lambda: nullcontext(MemoryStateStore()))
    await check_session_store(lambda: nullcontext(MemorySessionStore()))
