"""The environment selects registries, and every fault names its variable."""

from __future__ import annotations

import pytest

from trio_agentapp.abc import A2ATransportsProperties
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.registries import RedisRegistry, registries_from_environment, registries_of


def selected(redis_url: str | None = None, **environment: str) -> list[str]:
    found = registries_from_environment(environment, redis_url=redis_url)
    return [registry.registry_name() for registry in found]


def test_nothing_selects_nothing() -> None:
    assert selected() == []
    assert selected(A2A_REGISTRY_ENABLED="false", A2A_REGISTRY_TYPE="nacos", NACOS_SERVER_ADDR="x") == []
    assert selected(A2A_REGISTRY_ENABLED="", NACOS_SERVER_ADDR="") == []
    assert selected("redis://localhost") == []


@pytest.mark.parametrize("name", ["SERVER_ADDR", "NAMESPACE_ID"])
def test_any_variable_of_nacos_selects_it(name: str) -> None:
    assert selected(**{f"NACOS_{name}": "value"}) == ["nacos"]


def test_types() -> None:
    assert selected(A2A_REGISTRY_TYPE=" Redis, nacos ,dns-sd,redis,", A2A_REGISTRY_REDIS_URL="redis://x") == [
        "redis",
        "nacos",
        "dns-sd",
    ]
    assert selected("redis://localhost", A2A_REGISTRY_TYPE="redis", A2A_REGISTRY_ENABLED="ON") == ["redis"]
    assert selected(A2A_REGISTRY_TYPE="dns-sd", NACOS_SERVER_ADDR="localhost") == ["dns-sd"]


def test_the_url_of_the_variable_wins() -> None:
    environment = {"A2A_REGISTRY_TYPE": "redis", "A2A_REGISTRY_REDIS_URL": "redis://first"}
    [registry] = registries_from_environment(environment, redis_url="redis://second")
    assert "first" in repr(registry)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"A2A_REGISTRY_ENABLED": "maybe"}, "A2A_REGISTRY_ENABLED must be true or false, not 'maybe'"),
        ({"A2A_REGISTRY_ENABLED": "1"}, "A2A_REGISTRY_ENABLED is on, and A2A_REGISTRY_TYPE names no registry"),
        (
            {"A2A_REGISTRY_TYPE": "consul"},
            "A2A_REGISTRY_TYPE: 'consul' is unknown; the registries are redis",
        ),
        ({"A2A_REGISTRY_TYPE": "redis"}, "there is no server; set A2A_REGISTRY_REDIS_URL"),
        ({"A2A_REGISTRY_TYPE": "redis", "A2A_REGISTRY_REDIS_URL": "x"}, "A2A_REGISTRY_REDIS_URL: "),
        ({"NACOS_SERVER_ADDR": "ftp://x"}, "NACOS_SERVER_ADDR: 'ftp://x' is not an address"),
        ({"NACOS_USERNAME": "nacos"}, "NACOS_USERNAME and NACOS_PASSWORD belong together"),
        ({"NACOS_ACCESS_KEY": "key"}, "NACOS_ACCESS_KEY and NACOS_SECRET_KEY belong together"),
    ],
)
def test_faults_name_the_variable(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        registries_from_environment(environment)


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACOS_SERVER_ADDR", "10.0.0.9:8848")
    [registry] = registries_from_environment()
    assert "10.0.0.9" in repr(registry)


def test_the_environment_switches_registries_of_the_code_off(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = RedisRegistry("redis://127.0.0.1:9")
    assert registries_of(registry) == [registry]
    monkeypatch.setenv("A2A_REGISTRY_ENABLED", "false")
    assert registries_of(registry) == []


def test_another_environment_is_not_mixed_with_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACOS_SERVER_ADDR", "10.0.0.9:8848")
    monkeypatch.setenv("NACOS_USERNAME", "nacos")
    [registry] = registries_from_environment({"NACOS_NAMESPACE_ID": "team"})
    assert "localhost" in repr(registry)


@pytest.mark.parametrize("host", ["", " ", "0.0.0.0", "::", None])
def test_hosts_that_others_cannot_reach(host: str) -> None:
    with pytest.raises(ConfigurationError, match="A2ATransportsProperties: "):
        A2ATransportsProperties(host, 80)


@pytest.mark.parametrize("port", [0, -1, 65536, "80", None])
def test_impossible_ports(port: int) -> None:
    with pytest.raises(ConfigurationError, match="port must be 1 to 65535"):
        A2ATransportsProperties("localhost", port)


def test_urls_of_transports() -> None:
    assert A2ATransportsProperties("::1", 80, "a2a").url == "http://[::1]:80/a2a"
    assert A2ATransportsProperties("host", 443, "/", support_tls=True).url == "https://host:443/"
    assert A2ATransportsProperties("host", 1).url == "http://host:1"
