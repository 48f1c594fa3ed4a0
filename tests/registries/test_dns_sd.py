"""The registry by DNS-SD, over real multicast on the loopback interface."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial

import pytest
import trio
from zeroconf import ServiceInfo

from trio_agentapp.abc import A2ATransportsProperties
from trio_agentapp.errors import ConfigurationError, RegistryError
from trio_agentapp.registries import DnsSdRegistry, keeping
from trio_agentapp.registries.watching import MAX_LISTED

from .conftest import CARD, loopback, opened, transport, until_async, watched
from .processes import registered_process


def threads_of_zeroconf() -> list[str]:
    """The threads of its browser and of its loop."""
    names = [each.name for each in threading.enumerate()]
    return [name for name in names if name.startswith("zeroconf") or "_run_loop" in name]


async def test_a_killed_instance_is_forgotten_and_a_watcher_sees_it() -> None:
    name = f"Friday-{os.getpid()}"  # all processes of this machine share one network
    async with opened(loopback()) as registry:
        async with registry.watch(name) as changes, registered_process("dns-sd", "", 7001, name) as first:
            async with registered_process("dns-sd", "", 7002, name):
                await watched(changes, 2)
                first.kill()
                agents = await watched(changes, 1)
                assert [agent.url for agent in agents] == ["http://127.0.0.1:7002/a2a"]
                assert not agents[0].card_is_whole


async def test_its_threads_are_joined() -> None:
    async with opened(loopback()) as registry:
        await registry.register(CARD, [transport()])
        await registry.list()
        assert len(threads_of_zeroconf()) == 2
    assert threads_of_zeroconf() == []
    async with opened(registry):  # it can be opened again
        await registry.list()
    assert threads_of_zeroconf() == []


async def test_a_cancelled_start_or_call_leaves_no_thread() -> None:
    for seconds in (0, 0.01, 0.2):
        with trio.move_on_after(seconds) as scope:
            async with opened(loopback()) as registry:
                await registry.register(CARD, [transport()])
                await trio.sleep_forever()
        assert scope.cancelled_caught
    assert threads_of_zeroconf() == []


async def test_a_deregistered_instance_says_so_at_once() -> None:
    name = f"Saturday-{os.getpid()}"
    card = {**CARD, "name": name}
    async with opened(loopback()) as other:
        async with keeping(card, [transport()], loopback()) as keeper:
            keeper.announce()

            async def found(count: int) -> bool:
                return len(await other.resolve(name)) == count

            await until_async(partial(found, 1))
            await keeper.withdraw()
            assert keeper.statuses()[0].state == "deregistered"
            await until_async(partial(found, 0))


async def test_no_interface() -> None:
    registry = DnsSdRegistry(interfaces=["192.0.2.1"])
    with pytest.raises(
        RegistryError, match=r"no network interface has the address 192\.0\.2\.1; there are .*127\.0\.0\.1"
    ):
        async with registry.open():
            pytest.fail("it was opened")


async def test_names_of_hosts_and_ipv6() -> None:
    name = f"Sunday-{os.getpid()}"
    card = {**CARD, "name": name}
    transports = [A2ATransportsProperties("localhost", 7007, "a2a"), A2ATransportsProperties("::1", 7007)]
    async with opened(loopback()) as one, opened(loopback()) as other:
        await one.register(card, transports)

        async def found() -> bool:
            agents = await other.resolve(name)
            urls = sorted(each.url for agent in agents for each in agent.transports)
            return urls == ["http://[::1]:7007", "http://localhost:7007/a2a"]

        await until_async(found)
        with pytest.raises(RegistryError, match=r"the address of 'no-such-host.invalid' is not known"):
            await one.register(card, [A2ATransportsProperties("no-such-host.invalid", 1)])


async def test_what_does_not_fit_is_refused() -> None:
    async with opened(loopback()) as registry:
        with pytest.raises(ConfigurationError, match="DNS-SD takes 240 bytes for the name"):
            await registry.register({"name": "x" * 241}, [transport()])
        with pytest.raises(ConfigurationError, match="this one has none"):
            await registry.register(CARD, [])


async def test_services_of_other_programs_and_too_many_of_them() -> None:
    """What comes from the network is not trusted: wrong entries are left out, and there is a bound."""
    async with opened(loopback()) as registry:
        await registry.list()

        def info(number: int, **text: str) -> ServiceInfo:
            label = f"x{number}._a2a._tcp.local."
            return ServiceInfo("_a2a._tcp.local.", label, number % 60_000 + 1, properties=text)

        registry._learn("1", info(1))
        registry._learn("2", info(2, name="x"))
        registry._learn("3", info(3, name="x", instance="y"))
        registry._learn("4", ServiceInfo("_a2a._tcp.local.", "z._a2a._tcp.local.", 0, properties={"name": "x"}))
        assert [agent.name for agent in registry._agents() if agent.name == "x"] == []
        for number in range(MAX_LISTED + 10):
            registry._learn(f"m{number}", info(number, name="many", instance=f"i{number}", host="h"))
        assert len(registry._services) == MAX_LISTED
        assert len(registry._agents()) <= MAX_LISTED


def test_settings_that_cannot_work() -> None:
    for options in ({"ttl": 0.5}, {"ttl": float("nan")}, {"settle": -1}, {"settle": 61}):
        with pytest.raises(ConfigurationError, match="ttl must be 1 to 3600 s and settle 0 to 60 s"):
            DnsSdRegistry(**options)


def test_without_its_library() -> None:
    program = (
        "import sys; sys.modules['zeroconf'] = None\n"
        "from trio_agentapp.registries import DnsSdRegistry, registries_from_environment\n"
        "for make in (DnsSdRegistry, lambda: registries_from_environment({'A2A_REGISTRY_TYPE': 'dns-sd'})):\n"
        "    try: make()\n"
        "    except ValueError as error: sys.stdout.write(f'{error}\\n')\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    needs = "DnsSdRegistry needs a library that is not installed: pip install 'trio-agentapp[dns-sd]'"
    assert answer.stdout.splitlines() == [needs, f"A2A_REGISTRY_TYPE is dns-sd, and cannot be used: {needs}"]
