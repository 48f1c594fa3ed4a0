"""The contracts of registries of agents as questions. They ask for what `abc` promises, and for nothing else.

    async def test_my_registry():
        not_offered = await check_agent_registry(my_registry)

`async with my_registry() as registry:` opens a registry. A question opens several of them: each is another process
that uses the same place. Questions about finding agents are not applicable to a registry that is no AgentDirectory.

Each question uses new names, so a place with the entries of earlier questions serves as well as an empty one.
Registrations have to last some seconds without being renewed.
"""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import trio

from ...abc import A2ATransportsProperties, AgentDirectory, AgentRegistry, RegisteredAgent
from ...errors import ConfigurationError
from ...registries.foreign import ForeignRegistry, as_registry
from .asking import expect, offered, opened_by, put, put_all, questions_in

__all__ = ["MakeRegistry", "ask_registry", "check_agent_registry", "registry_questions"]

MakeRegistry: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]
"""Opens one more registry over the same place. It may be a user's own, with sync methods."""

Question: TypeAlias = Callable[[MakeRegistry], Awaitable[None]]

TIMEOUT = 60.0
"""Seconds for the answer to one question. A registry over multicast needs some seconds for each step."""

LOOK_AGAIN = 0.05
"""Seconds between two looks at a registry that may need some time to spread a change."""

_ports = itertools.count(random.randrange(20_000, 50_000))  # noqa: S311  test data


async def has_a_name(make: MakeRegistry) -> None:
    async with _opened(make) as registry:
        name = registry.registry_name()
        expect(name, f"registry_name() is {name!r}, and must be a short text")


async def may_be_called_again_and_again(make: MakeRegistry) -> None:
    async with _opened(make) as registry:
        await registry.deregister()
        card, transports = _card(), [_transport()]
        for _ in range(2):
            await registry.register(card, transports)
            await registry.renew()
        for _ in range(2):
            await registry.deregister()
        await registry.register(card, transports)
        await registry.deregister()


async def keeps_the_card_of_the_caller_unchanged(make: MakeRegistry) -> None:
    async with _opened(make) as registry:
        card = _card()
        before = dict(card)
        await registry.register(card, [_transport()])
        await registry.deregister()
        expect(card == before, f"register() has changed the card of its caller to {card!r}")


async def an_unknown_name_is_not_found(make: MakeRegistry) -> None:
    async with _opened(make) as registry:
        found = await _directory(registry).resolve(_name())
        expect([*found] == [], f"an unknown name was found: {found!r:.200}")


async def is_found_by_its_name(make: MakeRegistry) -> None:
    async with _opened(make) as registry, _opened(make) as other:
        directory = _directory(other)
        card, transport = _card(), _transport()
        await registry.register(card, [transport])
        [agent] = await _found(directory, card["name"], 1)
        expect(agent.name == card["name"], f"the name of {card['name']!r} is {agent.name!r}")
        expect(agent.url == transport.url, f"the URL {transport.url} was found as {agent.url!r}")
        for key in card if agent.card_is_whole else ("name", "version"):
            expect(agent.agent_card.get(key) == card[key], f"{key!r} of the card is {agent.agent_card.get(key)!r}")
        await registry.deregister()
        await _found(directory, card["name"], 0)


async def all_transports_of_an_instance_are_found(make: MakeRegistry) -> None:
    async with _opened(make) as registry, _opened(make) as other:
        directory = _directory(other)
        port = next(_ports)
        transports = [
            A2ATransportsProperties("127.0.0.1", port, "/a2a"),
            A2ATransportsProperties("127.0.0.1", port, "/a2a/v1", support_tls=True, transport_type="HTTP+JSON"),
        ]
        card = _card()
        await registry.register(card, transports)

        async def complete() -> bool:
            agents = await directory.resolve(card["name"])
            found = [(each.url, each.transport_type) for agent in agents for each in agent.transports]
            return len(agents) == 1 and sorted(found) == sorted(
                (each.url, each.transport_type) for each in transports
            )

        await _until(complete, "two transports of one instance were not found as one agent")
        await registry.deregister()
        await _found(directory, card["name"], 0)


async def another_registration_replaces_the_first(make: MakeRegistry) -> None:
    async with _opened(make) as registry, _opened(make) as other:
        directory = _directory(other)
        card, transport = _card(), _transport()
        await registry.register(card, [_transport()])
        await registry.register({**card, "version": "2.0.0"}, [transport])

        async def replaced() -> bool:
            agents = await directory.resolve(card["name"])
            return [(agent.url, agent.agent_card["version"]) for agent in agents] == [(transport.url, "2.0.0")]

        await _until(replaced, "the second registration of an instance did not replace the first")


async def instances_of_one_name_are_told_apart(make: MakeRegistry) -> None:
    async with _opened(make) as first, _opened(make) as second, _opened(make) as other:
        directory = _directory(other)
        card, transports = _card(), [_transport(), _transport()]
        await first.register(card, transports[:1])
        await second.register(card, transports[1:])
        agents = await _found(directory, card["name"], 2)
        expect(
            {agent.url for agent in agents} == {each.url for each in transports}, f"the URLs are wrong: {agents!r}"
        )
        expect(len({agent.instance_id for agent in agents}) == 2, "two instances have the same instance_id")
        await first.deregister()
        [left] = await _found(directory, card["name"], 1)
        expect(left.url == transports[1].url, "deregister() has removed another instance than its own")


async def all_agents_are_listed(make: MakeRegistry) -> None:
    async with _opened(make) as first, _opened(make) as second, _opened(make) as other:
        directory = _directory(other)
        names = [_name(), _name()]
        for registry, name in zip((first, second), names, strict=True):
            await registry.register(_card(name), [_transport()])

        async def listed() -> bool:
            return set(names) <= {agent.name for agent in await directory.list()}

        await _until(listed, "list() does not return all agents")


async def a_watcher_sees_instances_come_and_go(make: MakeRegistry) -> None:
    async with _opened(make) as first, _opened(make) as second, _opened(make) as other:
        card = _card()
        await first.register(card, [_transport()])
        async with _directory(other).watch(card["name"]) as changes:
            await _watched(changes, 1)
            await second.register(card, [_transport()])
            await _watched(changes, 2)
            await first.deregister()
            await _watched(changes, 1)
            await second.deregister()
            await _watched(changes, 0)


async def an_unusual_name_is_found_or_refused(make: MakeRegistry) -> None:
    async with _opened(make) as registry, _opened(make) as other:
        directory = _directory(other)
        card = _card(f"Gärtner {{*}}: 東京 'n' \"co\" / {secrets.token_hex(3)}")
        try:
            await registry.register(card, [_transport()])
        except ConfigurationError:
            return
        await _found(directory, card["name"], 1)


QUESTIONS: Sequence[Question] = questions_in(globals())


def registry_questions() -> Sequence[Question]:
    """Return all questions, the simple ones first, those about finding agents last."""
    return QUESTIONS


async def ask_registry(make: MakeRegistry, question: Question, *, timeout: float = TIMEOUT) -> bool:
    """Put one question. Return False if it is about finding agents, which the registry does not offer.

    Raises:
        AssertionError: the answer is wrong, is an exception, or did not come within `timeout` seconds. The message
            begins with the name of the question.
    """
    return await put(question, make, "registry", timeout)


async def check_agent_registry(make: MakeRegistry, *, timeout: float = TIMEOUT) -> Sequence[str]:
    """Put every question. Return the names of those about parts that the registry does not offer.

    Raises:
        AssertionError: the first wrong answer. See `ask_registry`.
    """
    return await put_all(QUESTIONS, partial(ask_registry, make, timeout=timeout))


@asynccontextmanager
async def _opened(make: MakeRegistry) -> AsyncIterator[AgentRegistry]:
    async with opened_by(make) as registry:
        yield as_registry(registry)


def _directory(registry: AgentRegistry) -> AgentDirectory:
    found: object = registry.registry if isinstance(registry, ForeignRegistry) else registry
    return offered(found if isinstance(found, AgentDirectory) else None)


def _name() -> str:
    return f"agent {secrets.token_hex(8)}"


def _card(name: str | None = None) -> dict[str, Any]:
    return {
        "name": name or _name(),
        "description": "Answers questions.",
        "version": "1.0.0",
        "capabilities": {"streaming": True},
        "skills": [{"id": "chat", "name": "Chat", "description": "Chats.", "tags": ["chat"]}],
    }


def _transport() -> A2ATransportsProperties:
    return A2ATransportsProperties("127.0.0.1", next(_ports), "/a2a")


async def _found(directory: AgentDirectory, name: str, count: int) -> Sequence[RegisteredAgent]:
    """Wait until a name has so many instances."""
    agents: Sequence[RegisteredAgent] = []

    async def complete() -> bool:
        nonlocal agents
        agents = await directory.resolve(name)
        return len(agents) == count

    await _until(complete, f"{count} instance(s) of {name!r} were expected")
    return agents


async def _watched(changes: AsyncIterator[Sequence[RegisteredAgent]], count: int) -> None:
    """Read changes until there are so many instances."""
    async for agents in changes:
        if len(agents) == count:
            return
    raise AssertionError("watch() has ended by itself")


async def _until(holds: Callable[[], Awaitable[bool]], sentence: str) -> None:
    with trio.move_on_after(TIMEOUT / 2):
        while True:
            if await holds():
                return
            await trio.sleep(LOOK_AGAIN)
    raise AssertionError(sentence)
