"""The registry in Nacos, against a server of our own that answers Nacos' documented HTTP APIs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
import trio

from trio_agentapp.abc import A2ATransportsProperties
from trio_agentapp.errors import ConfigurationError, RegistryError
from trio_agentapp.registries import NacosRegistry, keeping
from trio_agentapp.registries.watching import MAX_LISTED

from .conftest import CARD, NAME, opened, transport, until, until_async, watched
from .nacos_server import NacosServer, nacos_server
from .processes import registered_process


async def test_the_documented_calls_are_made(nacos: NacosServer) -> None:
    async with opened(NacosRegistry(nacos.address, namespace_id="team")) as registry:
        where = A2ATransportsProperties("10.0.0.7", 8443, "/a2a", support_tls=True)
        await registry.register({**CARD, "name": "Friday 1"}, [where])
        (_, _, card, _), (_, _, instance, _) = nacos.requests
        assert nacos.paths() == ["POST /nacos/v3/admin/ai/a2a", "POST /nacos/v3/client/ns/instance"]
        assert (card["namespaceId"], card["registrationType"]) == ("team", "SERVICE")
        assert json.loads(card["agentCard"]) == {
            **CARD,
            "name": "Friday 1",
            "protocolVersion": "0.3.0",
            "url": "https://10.0.0.7:8443/a2a",
            "preferredTransport": "JSONRPC",
        }
        assert json.loads(instance.pop("metadata")) == {
            "__nacos.agent.endpoint.path__": "/a2a",
            "__nacos.agent.endpoint.transport__": "JSONRPC",
            "__nacos.agent.endpoint.supportTls__": "true",
            "__nacos.agent.endpoint.protocol__": "",
            "__nacos.agent.endpoint.query__": "",
        }
        assert instance == {
            "namespaceId": "team",
            "groupName": "agent-endpoints",
            "serviceName": "____:Friday_032_049::1.0.0",
            "clusterName": "JSONRPC",
            "ip": "10.0.0.7",
            "port": "8443",
            "ephemeral": "true",
        }
        await registry.renew()
        assert nacos.requests[-1][2]["heartBeat"] == "true"
        await registry.deregister()
        assert nacos.paths()[-1] == "DELETE /nacos/v3/client/ns/instance"
        assert nacos.instances == {}
        assert list(nacos.cards) == [("team", "Friday 1")]  # it may be that of other instances


async def test_a_card_that_exists_is_updated(nacos: NacosServer) -> None:
    async with opened(NacosRegistry(nacos.address)) as registry:
        await registry.register(CARD, [transport()])
        await registry.register({**CARD, "version": "2.0.0"}, [transport()])
        assert nacos.requests[3][2]["setAsLatest"] == "true"
        [agent] = await registry.resolve(NAME)
        assert agent.agent_card["version"] == "2.0.0"
        assert [key[2] for key in nacos.instances] == ["Friday::2.0.0"]


async def test_an_expired_instance_is_registered_again(nacos: NacosServer) -> None:
    async with opened(NacosRegistry(nacos.address)) as registry:
        await registry.register(CARD, [transport()])
        nacos.instances.clear()
        await registry.renew()
        assert len(await registry.resolve(NAME)) == 1


async def test_a_killed_instance_expires_and_the_other_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async with nacos_server(expires_after=6.0) as nacos:
        async with opened(NacosRegistry(nacos.address, poll=0.2)) as registry:
            async with registry.watch(NAME) as changes, registered_process("nacos", nacos.address, 7001) as first:
                async with registered_process("nacos", nacos.address, 7002):
                    await watched(changes, 2)
                    first.kill()
                    agents = await watched(changes, 1)
                    assert [agent.url for agent in agents] == ["http://127.0.0.1:7002/a2a"]


async def test_a_log_in_is_made_once_and_again_when_its_token_is_refused() -> None:
    async with nacos_server(users={"nacos": "secret"}) as nacos:
        async with opened(NacosRegistry(nacos.address, username="nacos", password="secret")) as registry:
            await registry.register(CARD, [transport()])
            await registry.renew()
            assert nacos.paths().count("POST /nacos/v3/auth/user/login") == 1
            assert nacos.requests[-1][3]["accesstoken"] == "token-0"
            nacos.tokens.clear()
            await registry.renew()
            assert nacos.paths().count("POST /nacos/v3/auth/user/login") == 2


async def test_a_token_is_replaced_before_it_ends() -> None:
    async with nacos_server(users={"nacos": "secret"}, token_ttl=0) as nacos:
        async with opened(NacosRegistry(nacos.address, username="nacos", password="secret")) as registry:
            await registry.register(CARD, [transport()])
            assert nacos.paths().count("POST /nacos/v3/auth/user/login") == 2


@pytest.mark.parametrize("login", [{"username": "nacos", "password": "wrong"}, {}])
async def test_wrong_credentials(login: dict[str, str]) -> None:
    async with nacos_server(users={"nacos": "secret"}) as nacos:
        async with keeping(CARD, [transport()], NacosRegistry(nacos.address, **login)) as keeper:
            keeper.announce()
            await until(lambda: keeper.statuses()[0].failures >= 2)
            error = keeper.statuses()[0].error or ""
            assert "status 403" in error
            assert ("NACOS_USERNAME and NACOS_PASSWORD" in error) == bool(login)
            assert "wrong" not in error
        assert nacos.cards == {}


async def test_a_signature_of_an_access_key(nacos: NacosServer) -> None:
    async with opened(NacosRegistry(nacos.address, access_key="key", secret_key="secret")) as registry:
        await registry.register(CARD, [transport()])

    def signed(text: str) -> str:
        return base64.b64encode(hmac.digest(b"secret", text.encode(), hashlib.sha1)).decode()

    (_, _, _, card), (_, _, _, instance) = nacos.requests
    assert card["spas-accesskey"] == "key"
    assert card["spas-signature"] == signed(f"public++{card['timestamp']}")
    assert (instance["ak"], instance["signature"]) == ("key", signed(instance["data"]))
    assert instance["data"].endswith("@@agent-endpoints@@Friday::1.0.0")


async def test_a_server_that_is_down_at_the_start_and_back_later() -> None:
    async with nacos_server() as nacos:
        port = nacos.port
    async with keeping(CARD, [transport()], NacosRegistry(f"127.0.0.1:{port}")) as keeper:
        keeper.announce()
        await until(lambda: keeper.statuses()[0].state == "retrying")
        assert f"Nacos does not answer: http://127.0.0.1:{port}/nacos" in (keeper.statuses()[0].error or "")
        async with nacos_server(port) as nacos:
            await until(lambda: keeper.statuses()[0].state == "registered")
            assert len(nacos.instances) == 1
            await keeper.withdraw()
            assert nacos.instances == {}


async def test_a_server_that_hangs(nacos: NacosServer) -> None:
    nacos.hangs = True
    async with keeping(CARD, [transport()], NacosRegistry(nacos.address), call_timeout=0.2) as keeper:
        keeper.announce()
        await until(lambda: keeper.statuses()[0].state == "retrying")
        assert keeper.statuses()[0].error == "no answer within 0.2 s"
        nacos.hangs = False
        await until(lambda: keeper.statuses()[0].state == "registered")


async def test_the_next_server_of_a_cluster_is_asked(nacos: NacosServer) -> None:
    async with nacos_server() as gone:
        dead = gone.address
    async with nacos_server(status=503) as ill:
        async with opened(NacosRegistry(f"{dead},{ill.address}, {nacos.address}")) as registry:
            await registry.register(CARD, [transport()])
            assert len(await registry.resolve(NAME)) == 1


@pytest.mark.parametrize("status", [200, 302, 404])
async def test_what_is_no_nacos_is_named(nacos: NacosServer, status: int) -> None:
    nacos.status = status
    async with opened(NacosRegistry(nacos.address)) as registry:
        with pytest.raises(RegistryError, match=f"answered with status {status} and no JSON of Nacos 3"):
            await registry.register(CARD, [transport()])


@pytest.mark.parametrize("answer", [None, [], "text", {"name": 7}, {"pageItems": None}, {"pageItems": [{}]}])
async def test_answers_of_another_shape(nacos: NacosServer, answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(nacos), "answer", lambda *_: answer)
    async with opened(NacosRegistry(nacos.address)) as registry:
        for call in (registry.list, lambda: registry.resolve(NAME)):
            with pytest.raises(RegistryError, match="has another shape than documented"):
                await call()


async def test_ten_thousand_instances_of_one_name(nacos: NacosServer) -> None:
    async with opened(NacosRegistry(nacos.address)) as registry:
        await registry.register(CARD, [transport()])
        [(key, instance)] = nacos.instances.items()
        nacos.expires_after = 1e9
        for number in range(1, MAX_LISTED + 10):
            ip = f"10.1.{number // 250}.{number % 250}"
            nacos.instances[(*key[:4], ip, key[5])] = {**instance, "ip": ip}
        assert len(await registry.resolve(NAME)) == MAX_LISTED
        assert len(await registry.list()) == MAX_LISTED


async def test_many_agents_are_read_in_pages(nacos: NacosServer) -> None:
    nacos.expires_after = 1e9
    async with opened(NacosRegistry(nacos.address)) as registry:
        for number in range(101):
            await registry.register({**CARD, "name": f"agent-{number}"}, [transport(7000 + number)])
            registry._endpoints.clear()  # as if each was another process
        assert len(await registry.list()) == 101


async def test_unhealthy_instances_are_left_out(nacos: NacosServer) -> None:
    async with opened(NacosRegistry(nacos.address)) as registry:
        await registry.register(CARD, [transport()])
        [instance] = nacos.instances.values()
        for field in ("healthy", "enabled"):
            instance[field] = False
            assert await registry.resolve(NAME) == []
            instance[field] = True


async def test_an_odd_endpoint_hides_no_other(nacos: NacosServer) -> None:
    async with opened(NacosRegistry(nacos.address)) as registry:
        await registry.register(CARD, [transport()])
        [(key, instance)] = nacos.instances.items()
        nacos.instances[(*key[:4], "", "0")] = {**instance, "ip": "", "port": 0}
        assert len(await registry.resolve(NAME)) == 1


async def test_names_that_nacos_does_not_take(nacos: NacosServer) -> None:
    async with opened(NacosRegistry(nacos.address)) as registry:
        for name in ("x" * 65, "Frédéric", "a\nb"):
            with pytest.raises(ConfigurationError, match="1 to 64 printable ASCII characters"):
                await registry.register({**CARD, "name": name}, [transport()])
            assert await registry.resolve(name) == []
        with pytest.raises(ConfigurationError, match="has none"):
            await registry.register(CARD, [])
    assert nacos.requests == []


@pytest.mark.parametrize("address", ["ftp://x", "host:0", "host:99999", "http://", "host:port", " , "])
def test_addresses_that_cannot_work(address: str) -> None:
    with pytest.raises(ConfigurationError, match="NACOS_SERVER_ADDR"):
        NacosRegistry(address)


def test_a_wrong_address_does_not_show_its_password() -> None:
    with pytest.raises(ConfigurationError, match="is not an address") as caught:
        NacosRegistry("ftp://nacos:secret@host")
    assert "secret" not in str(caught.value)


def test_half_a_log_in_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="NACOS_USERNAME and NACOS_PASSWORD belong together"):
        NacosRegistry(username="nacos")
    with pytest.raises(ConfigurationError, match="NACOS_ACCESS_KEY and NACOS_SECRET_KEY belong together"):
        NacosRegistry(secret_key="x")
    with pytest.raises(ConfigurationError, match="poll"):
        NacosRegistry(poll=0)


async def test_the_environment_is_read(nacos: NacosServer, monkeypatch: pytest.MonkeyPatch) -> None:
    nacos.users["ann"] = "secret"
    for name, value in {
        "SERVER_ADDR": nacos.address,
        "USERNAME": "ann",
        "PASSWORD": "secret",
        "NAMESPACE_ID": "team",
    }.items():
        monkeypatch.setenv(f"NACOS_{name}", value)
    async with opened(NacosRegistry()) as registry:
        await registry.register(CARD, [transport()])
    assert list(nacos.cards) == [("team", NAME)]
    assert "secret" not in repr(registry) + str(registry.__dict__)


class Credentials:
    def __init__(self, key: str | None, secret: str | None) -> None:
        self.key, self.secret = key, secret

    def get_credentials(self) -> Credentials:
        return self

    def get_access_key_id(self) -> str | None:
        return self.key

    def get_access_key_secret(self) -> str | None:
        return self.secret


class ClientConfig:
    """The fields of the SDK's class that are read. The SDK itself is not installed here."""

    def __init__(self, address: str, **fields: object) -> None:
        self.server_list = [address]
        self.namespace_id = "team"
        self.username: object = None
        self.password: object = None
        self.credentials_provider = Credentials(None, None)
        self.__dict__ |= fields


@pytest.mark.parametrize("first", [True, False])
async def test_a_config_of_the_sdk_is_read(
    nacos: NacosServer, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NACOS_USERNAME", "somebody")  # a config is not mixed with the environment
    nacos.users["ann"] = "secret"
    config = ClientConfig(
        f"http://{nacos.address}", username="ann", password="secret", credentials_provider=Credentials("key", "s")
    )
    registry = NacosRegistry(config) if first else NacosRegistry(nacos_client_config=config)
    async with opened(registry):
        await registry.register(CARD, [transport()])
    assert list(nacos.cards) == [("team", NAME)]
    assert nacos.requests[1][3]["spas-accesskey"] == "key"
    assert "spas-accesskey" not in nacos.requests[0][3]


def test_configs_that_are_none_or_contradict() -> None:
    with pytest.raises(ConfigurationError, match="neither an address nor a ClientConfig"):
        NacosRegistry(7)
    with pytest.raises(ConfigurationError, match="not both"):
        NacosRegistry("localhost", nacos_client_config=ClientConfig("localhost"))
    NacosRegistry(ClientConfig("localhost", credentials_provider=None))


async def test_a_call_that_was_cut_harms_no_later_one(nacos: NacosServer) -> None:
    nacos.hangs = True
    async with opened(NacosRegistry(nacos.address)) as registry:
        with trio.move_on_after(0.1) as scope:
            await registry.register(CARD, [transport()])
        assert scope.cancelled_caught
        nacos.hangs = False

        async def works() -> bool:
            await registry.register(CARD, [transport()])
            return True

        await until_async(works)
