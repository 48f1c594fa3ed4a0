"""The keeper: registered when ready, kept alive, retried, deregistered in time, and never in the way."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from trio_agentapp.abc import AgentRegistry
from trio_agentapp.errors import ConfigurationError, RegistryError
from trio_agentapp.redis import Backoff
from trio_agentapp.registries import Keeper, keeping

from .conftest import CARD, NAME, transport, until

QUICK = Backoff(first=0.01, last=0.05)


class Recorded(AgentRegistry):
    """A registry that notes its calls, and does in each what the test wants."""

    renew_every = None  # type: ignore[assignment]

    def __init__(self, name: str = "recorded", **behaviour: Callable[[], Any]) -> None:
        self.name = name
        self.behaviour = behaviour
        self.calls: list[str] = []
        self.opened = 0

    def registry_name(self) -> str:
        return self.name

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await self.act("open")
        self.opened += 1
        try:
            yield
        finally:
            self.opened -= 1

    async def act(self, call: str) -> None:
        self.calls.append(call)
        if (behaviour := self.behaviour.get(call)) is not None and (waiting := behaviour()) is not None:
            await waiting

    async def register(self, agent_card: Any, a2a_transports_properties: Any) -> None:
        self.card, self.transports = agent_card, a2a_transports_properties
        agent_card["name"] = "changed by the registry"
        await self.act("register")

    async def renew(self) -> None:
        await self.act("renew")

    async def deregister(self) -> None:
        await self.act("deregister")


def failing(times: int, error: BaseException) -> Callable[[], None]:
    left = [times]

    def fail() -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise error

    return fail


def states(keeper: Keeper) -> list[str]:
    return [status.state for status in keeper.statuses()]


async def test_a_whole_life(autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_agentapp.registries")
    registry = Recorded()
    async with keeping(CARD, [transport()], registry) as keeper:
        await trio.testing.wait_all_tasks_blocked()
        assert (states(keeper), registry.calls) == (["waiting"], [])
        keeper.announce()
        keeper.announce()
        await trio.testing.wait_all_tasks_blocked()
        assert (states(keeper), registry.calls) == (["registered"], ["open", "register"])
        assert list(registry.transports) == [transport()]
        await keeper.withdraw()
        assert states(keeper) == ["deregistered"]
        await keeper.withdraw()
    assert registry.calls == ["open", "register", "deregister"]
    assert registry.opened == 0
    assert CARD["name"] == NAME
    assert [record.getMessage() for record in caplog.records] == [
        "recorded: the agent 'Friday' is registered",
        "recorded: the agent 'Friday' is deregistered",
    ]


async def test_transports_that_are_known_late(autojump_clock: trio.testing.MockClock) -> None:
    registry = Recorded()
    async with keeping(CARD, [], registry) as keeper:
        keeper.announce([transport(7001)])
        keeper.announce([transport(7002)])
        await trio.testing.wait_all_tasks_blocked()
        assert list(registry.transports) == [transport(7001)]


async def test_nothing_is_called_for_an_app_that_was_never_ready(autojump_clock: trio.testing.MockClock) -> None:
    registry = Recorded()
    async with keeping(CARD, [transport()], [registry]) as keeper:
        await trio.testing.wait_all_tasks_blocked()
    assert (states(keeper), registry.calls) == (["waiting"], [])
    assert trio.current_time() == autojump_clock.current_time()


async def test_it_renews_until_it_is_withdrawn(autojump_clock: trio.testing.MockClock) -> None:
    registry = Recorded()
    registry.renew_every = 10.0  # type: ignore[assignment]
    async with keeping(CARD, [transport()], registry) as keeper:
        keeper.announce()
        await trio.sleep(60)
    renewals = registry.calls.count("renew")
    assert 6 <= renewals <= 8
    assert registry.calls == ["open", "register", *["renew"] * renewals, "deregister"]


async def test_a_failed_renewal_registers_again(autojump_clock: trio.testing.MockClock) -> None:
    registry = Recorded(renew=failing(1, RegistryError("it has expired")))
    registry.renew_every = 10.0  # type: ignore[assignment]
    async with keeping(CARD, [transport()], registry, backoff=QUICK) as keeper:
        keeper.announce()
        await trio.sleep(11)
        assert states(keeper) == ["registered"]
        assert keeper.statuses()[0].error == "it has expired"
        assert registry.calls == ["open", "register", "renew", "register"]


@pytest.mark.parametrize(
    "error", [RegistryError("no answer"), OSError("no route"), ValueError("a bug"), SystemExit(3)]
)
async def test_failures_are_retried_and_logged_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    caplog.set_level(logging.INFO, "trio_agentapp.registries")
    registry = Recorded(register=failing(100, error))
    begin = time.time()
    async with keeping(CARD, [transport()], registry) as keeper:
        keeper.announce()
        await until(lambda: states(keeper) == ["retrying"])
        since = keeper.statuses()[0].since
        await until(lambda: len(registry.calls) == 51, within=10_000, every=1)
        [status] = keeper.statuses()
        assert (status.state, status.failures, status.since) == ("retrying", 50, since)
        assert str(error) in (status.error or "")
        assert begin <= since <= time.time()
        assert trio.current_time() > 40 * 15  # the delay is between half of 30 s and 30 s
        await until(lambda: states(keeper) == ["registered"], within=10_000, every=1)
        assert keeper.statuses()[0].failures == 0
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert "is not registered" in messages[0]
    assert messages[1:] == [
        "recorded: the agent 'Friday' is registered",
        "recorded: the agent 'Friday' is deregistered",
    ]


async def test_another_kind_of_failure_is_logged(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    errors = iter([OSError("no route")] * 3 + [RegistryError("wrong password")] * 3)

    def fail() -> None:
        if (error := next(errors, None)) is not None:
            raise error

    async with keeping(CARD, [transport()], Recorded(register=fail)) as keeper:
        keeper.announce()
        await until(lambda: states(keeper) == ["registered"], within=1000, every=1)
    texts = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert texts == ["no route", "wrong password"]


async def test_a_registry_that_hangs_or_fails_delays_no_other(autojump_clock: trio.testing.MockClock) -> None:
    hanging = Recorded("hanging", register=trio.sleep_forever)
    closed = Recorded("closed", open=failing(10**6, RegistryError("no interface")))
    stuck = Recorded("stuck", open=trio.sleep_forever)
    good = Recorded("good")
    begin = trio.current_time()
    async with keeping(CARD, [transport()], [hanging, closed, stuck, good], withdraw_within=4.0) as keeper:
        assert trio.current_time() == begin
        keeper.announce()
        await trio.testing.wait_all_tasks_blocked()
        assert states(keeper) == ["waiting", "retrying", "waiting", "registered"]
        await trio.sleep(10.1)
        assert states(keeper) == ["retrying", "retrying", "waiting", "registered"]
        assert keeper.statuses()[0].error == "no answer within 10 s"
        begin = trio.current_time()
    assert trio.current_time() == begin  # all answer the deregistration at once
    assert states(keeper)[0] == "deregistered"  # the call that was cut may have registered it


async def test_the_deregistration_is_bounded(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    slow, good = Recorded("slow", deregister=trio.sleep_forever), Recorded("good")
    async with keeping(CARD, [transport()], [slow, good], withdraw_within=3.0) as keeper:
        keeper.announce()
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await keeper.withdraw()
        assert trio.current_time() - begin == pytest.approx(3.0)
    assert states(keeper) == ["registered", "deregistered"]
    assert [record.getMessage() for record in caplog.records] == [
        "slow: the agent was not deregistered in time; its registration expires by itself"
    ]


async def test_a_failed_deregistration_is_logged(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Recorded(deregister=failing(1, RegistryError("gone")))
    async with keeping(CARD, [transport()], registry) as keeper:
        keeper.announce()
        await trio.testing.wait_all_tasks_blocked()
    assert states(keeper) == ["retrying"]
    assert [record.getMessage() for record in caplog.records] == [
        "recorded: the agent 'Friday' is not deregistered: gone"
    ]


async def test_a_cancelled_or_failed_app_is_deregistered(autojump_clock: trio.testing.MockClock) -> None:
    registry = Recorded()
    with trio.CancelScope() as scope:
        async with keeping(CARD, [transport()], registry) as keeper:
            keeper.announce()
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert registry.calls == ["open", "register", "deregister"]
    registry = Recorded()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  the block has to run before it fails
        async with keeping(CARD, [transport()], registry) as keeper:
            keeper.announce()
            await trio.testing.wait_all_tasks_blocked()
            _ = 1 / 0
    assert registry.calls == ["open", "register", "deregister"]


class Sync:
    """A user's registry for the replaced product, with a `deregister` of its own."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.calls: list[str] = []
        self.release = threading.Event()
        self.release.set()

    def registry_name(self) -> str:
        return "sync"

    def register(self, agent_card: dict[str, Any], a2a_transports_properties: list[Any]) -> None:
        self.threads.append(threading.current_thread())
        self.calls.append(f"register {agent_card['name']} at {a2a_transports_properties[0].url}")
        self.release.wait(20)

    def deregister(self) -> None:
        self.calls.append("deregister")


async def test_a_users_sync_registry_is_called_in_a_thread() -> None:
    registry = Sync()
    async with keeping(CARD, [transport()], registry) as keeper:
        keeper.announce()
        await until(lambda: states(keeper) == ["registered"])
    assert registry.calls == ["register Friday at http://127.0.0.1:8090/a2a", "deregister"]
    assert threading.main_thread() not in registry.threads


class SyncInside(AgentRegistry):
    """A subclass with a connection of its own, whose `register` is sync all the same."""

    opened = registered = False

    def registry_name(self) -> str:
        return "inside"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.opened = True
        yield

    def register(self, agent_card: Any, a2a_transports_properties: Any) -> None:  # type: ignore[override]
        self.registered = self.opened


async def test_a_subclass_with_sync_methods_is_opened() -> None:
    registry = SyncInside()
    async with keeping(CARD, [transport()], registry) as keeper:
        keeper.announce()
        await until(lambda: states(keeper) == ["registered"])
    assert registry.registered


async def test_a_sync_registry_that_hangs_has_one_thread_and_delays_nothing() -> None:
    registry = Sync()
    registry.release.clear()
    async with keeping(
        CARD, [transport()], registry, call_timeout=0.05, withdraw_within=0.1, backoff=QUICK
    ) as keeper:
        keeper.announce()
        await until(lambda: keeper.statuses()[0].failures >= 3)
        await keeper.withdraw()  # within its bound; a test that hangs fails by its time-out
        assert len(registry.threads) == 1
    registry.release.set()


class NoRegister:
    def registry_name(self) -> str:
        return "none"


@pytest.mark.parametrize("wrong", ["redis", object(), NoRegister(), Recorded, [Recorded(), 7]])
async def test_what_is_no_registry_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match=r"is no registry, it has no method regist(er|ry_name)\(\)"):
        async with keeping(CARD, [transport()], wrong):
            pytest.fail("it was accepted")


@pytest.mark.parametrize("every", [0, -1, float("nan")])
async def test_a_registry_is_not_renewed_without_pause(every: float) -> None:
    registry = Recorded()
    registry.renew_every = every  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="registry recorded: renew_every must be None, or seconds above 0"):
        async with keeping(CARD, [], registry):
            pytest.fail("it was accepted")


async def test_wrong_cards_and_too_many_registries_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="a value of 'Friday' is not JSON"):
        async with keeping({**CARD, "provider": object()}, [], []):
            pytest.fail("it was accepted")
    for card in ({}, {"name": ""}, {"name": 7}):
        with pytest.raises(ConfigurationError, match="agent card: name must be text"):
            async with keeping(card, [], []):
                pytest.fail("it was accepted")
    with pytest.raises(ConfigurationError, match="16 registries at most, not 17"):
        async with keeping(CARD, [], [Recorded() for _ in range(17)]):
            pytest.fail("it was accepted")


async def test_no_registry_is_none() -> None:
    for none in (None, []):
        async with keeping(CARD, [transport()], none) as keeper:
            keeper.announce()
            assert list(keeper.statuses()) == []
