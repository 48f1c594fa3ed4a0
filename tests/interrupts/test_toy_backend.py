"""A minimal backend is enough: it answers all questions but those about parts that it does not offer."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import trio

from trio_agentapp import AgentApp
from trio_agentapp.abc import IdempotencyKeys, QuestionBoard, RunInbox, RunListing, RunWakeups, watching
from trio_agentapp.errors import ConfigurationError, NotOffered
from trio_agentapp.protocol.lifecycle import RunState
from trio_agentapp.testing import check_interrupt_backend
from trio_agentapp.testing.conformance import offers
from trio_agentapp.testing.conformance.parties import fresh_session

from .toy_backend import ToyBackend


async def test_a_minimal_backend_passes(autojump_clock: trio.testing.MockClock) -> None:
    not_offered = await check_interrupt_backend(lambda: nullcontext(ToyBackend()))
    assert not_offered == [question.__name__ for question in offers.QUESTIONS]


@pytest.mark.parametrize("make", [ToyBackend, ToyBackend()], ids=("class", "object"))
async def test_what_opens_no_backend_is_refused(make: Any) -> None:
    with pytest.raises(TypeError, match=r"@contextlib\.asynccontextmanager"):
        await check_interrupt_backend(make)


@pytest.mark.parametrize(
    ("given", "hint"), [(ToyBackend, "the class ToyBackend; pass an object"), ("redis://", "interrupt_redis_url")]
)
def test_what_an_app_cannot_take(given: Any, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint):
        AgentApp(interrupt_backend=given)


async def test_what_a_minimal_backend_does_not_offer() -> None:
    backend = ToyBackend()
    for capability in (IdempotencyKeys, QuestionBoard, RunInbox, RunListing, RunWakeups):
        assert capability.of(backend) is None
        with pytest.raises(NotOffered, match=r"^The interrupt backend of this app does not "):
            capability.needed_from(backend)
    async with watching(backend, fresh_session(), print):
        pass


async def test_an_app_on_a_minimal_backend() -> None:
    async def chat():
        while True:
            yield "word "
            await trio.sleep(0.01)

    app = AgentApp(agent=chat, interrupt_backend=ToyBackend())
    async with app.runtime(), app.stream_query({"input": "Hi", "user_id": "u1", "session_id": "s1"}) as events:
        async for event in events:
            if event.object == "content":
                break
        receipt = await app.stop_chat("u1", "s1", wait=True)
        assert (receipt.accepted, receipt.stopped, receipt.state) == (True, True, RunState.STOPPED)
        async for event in events:
            last = event
    assert last.status == "canceled"
