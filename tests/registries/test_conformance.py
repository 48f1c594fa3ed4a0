"""The questions of the contract: every registry has the answers, also a user's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any

import pytest

from trio_agentapp.abc import A2ATransportsProperties, AgentCard, AgentDirectory, AgentRegistry, RegisteredAgent
from trio_agentapp.registries.watching import Snapshots, Wakeup
from trio_agentapp.testing import ask_registry, check_agent_registry, registry_questions

from .conftest import Make

QUESTIONS = {question.__name__: question for question in registry_questions()}


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_registry(make: Make, question: str) -> None:
    assert await ask_registry(make, QUESTIONS[question])


class OldRegistry:
    """As users of the replaced product have them: sync, and without `deregister`."""

    def registry_name(self) -> str:
        return "old"

    def register(self, agent_card: AgentCard, a2a_transports_properties: object = None) -> None:
        pass


async def test_a_sync_registry_that_only_registers() -> None:
    not_offered = await check_agent_registry(lambda: nullcontext(OldRegistry()))
    assert "is_found_by_its_name" in not_offered
    assert "may_be_called_again_and_again" not in not_offered


class ToyRegistry(AgentRegistry, AgentDirectory):
    """The shortest registry that finds agents: a dict that all instances share."""

    def __init__(self, place: dict[str, RegisteredAgent]) -> None:
        self.place = place

    def registry_name(self) -> str:
        return "toy"

    async def register(
        self, agent_card: AgentCard, a2a_transports_properties: Sequence[A2ATransportsProperties]
    ) -> None:
        self.place[f"{id(self)}"] = RegisteredAgent(
            name=agent_card["name"],
            instance_id=f"{id(self)}",
            agent_card=agent_card,
            transports=a2a_transports_properties,
        )

    async def deregister(self) -> None:
        self.place.pop(f"{id(self)}", None)

    async def list(self) -> Sequence[RegisteredAgent]:
        return [*self.place.values()]

    async def resolve(self, name: str) -> Sequence[RegisteredAgent]:
        return [agent for agent in self.place.values() if agent.name == name]

    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Sequence[RegisteredAgent]]]:
        yield Snapshots(self.list if name is None else partial(self.resolve, name), Wakeup(), poll=0.05)


async def test_a_users_own_registry() -> None:
    place: dict[str, RegisteredAgent] = {}
    assert await check_agent_registry(lambda: nullcontext(ToyRegistry(place))) == []


class Forgetful(ToyRegistry):
    async def deregister(self) -> None:
        self.place.clear()


class Greedy(ToyRegistry):
    async def resolve(self, name: str) -> Sequence[RegisteredAgent]:
        return await self.list()


class Changing(ToyRegistry):
    async def register(self, agent_card: Any, a2a_transports_properties: Any) -> None:
        await super().register(agent_card, a2a_transports_properties)
        agent_card["url"] = "http://localhost"


@pytest.mark.parametrize(
    ("wrong", "question"),
    [
        (Forgetful, "instances_of_one_name_are_told_apart"),
        (Greedy, "an_unknown_name_is_not_found"),
        (Changing, "keeps_the_card_of_the_caller_unchanged"),
    ],
)
async def test_a_wrong_registry_is_seen(wrong: type[ToyRegistry], question: str) -> None:
    place: dict[str, RegisteredAgent] = {}
    async with nullcontext(ToyRegistry(place)) as other:
        await other.register({"name": "other"}, [])
    with pytest.raises(AssertionError, match=f"^{question}: "):
        await ask_registry(lambda: nullcontext(wrong(place)), QUESTIONS[question], timeout=2)
