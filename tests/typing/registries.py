"""A registry of the user's own, and an app that is kept registered."""

from collections.abc import Sequence
from contextlib import nullcontext

from trio_agentapp.abc import A2ATransportsProperties, AgentCard, AgentDirectory, AgentRegistry, RegisteredAgent
from trio_agentapp.registries import (
    DnsSdRegistry,
    NacosRegistry,
    RedisRegistry,
    RegistryStatus,
    keeping,
    registries_from_environment,
)
from trio_agentapp.testing import check_agent_registry


class Registry(AgentRegistry):
    renew_every = 10.0

    def registry_name(self) -> str:
        return "mine"

    async def register(
        self, agent_card: AgentCard, a2a_transports_properties: Sequence[A2ATransportsProperties]
    ) -> None:
        self.known = {transport.url: agent_card["name"] for transport in a2a_transports_properties}


async def main() -> None:
    registries: list[AgentRegistry] = [
        Registry(),
        RedisRegistry("redis://localhost", ttl=10),
        NacosRegistry("localhost:8848", username="nacos", password="secret"),
        DnsSdRegistry(interfaces=["127.0.0.1"]),
        *registries_from_environment(),
    ]
    transport = A2ATransportsProperties("10.0.0.7", 8080, "/a2a", support_tls=True)
    async with keeping({"name": "Friday"}, [transport], registries, withdraw_within=3) as keeper:
        keeper.announce()
        statuses: Sequence[RegistryStatus] = keeper.statuses()
        assert statuses[0].state == "registered"
        await keeper.withdraw()
    await check_agent_registry(lambda: nullcontext(Registry()))


async def follow(directory: AgentDirectory) -> None:
    async with directory.watch("Friday") as changes:
        async for agents in changes:
            first: RegisteredAgent = agents[0]
            assert first.url


# What must not pass.
A2ATransportsProperties("10.0.0.7", "8080")  # type: ignore[arg-type]
RedisRegistry()  # type: ignore[call-arg]
NacosRegistry("localhost", "nacos")  # type: ignore[call-arg]
AgentRegistry()  # type: ignore[abstract]
