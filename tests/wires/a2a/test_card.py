"""Agent cards: what is accepted, what stops a start, and what clients of each version see."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from trio_agentapp import AgentApp
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.wires import A2AAdapter, AgentCardWithRuntimeConfig
from trio_agentapp.wires.a2a.card import accepts, completed_card, written_card

SKILL = {"id": "s", "name": "S", "description": "d", "tags": ["t"]}


def written(card: dict[str, Any] | None = None, versions: tuple[str, ...] = ("1.0", "0.3")) -> dict[str, Any]:
    config = AgentCardWithRuntimeConfig(agent_card=card)
    whole = completed_card(config.agent_card or {}, name="App", description="An app", extended=False)
    return written_card(whole, base="http://host", path="/a2a", versions=versions)


def test_a_card_of_the_app_alone() -> None:
    card = written()
    assert (card["name"], card["description"], card["version"]) == ("App", "An app", "1.0.0")
    assert [skill["id"] for skill in card["skills"]] == ["dialog"]
    assert card["capabilities"] == {"streaming": True, "pushNotifications": True, "extendedAgentCard": False}


def test_both_spellings_and_both_versions() -> None:
    new = {
        "defaultInputModes": ["text/plain"],
        "skills": [
            {**SKILL, "inputModes": ["image/png"], "securityRequirements": [{"schemes": {"a": {"list": []}}}]}
        ],
        "securitySchemes": {"a": {"httpAuthSecurityScheme": {"scheme": "bearer", "bearerFormat": "JWT"}}},
        "securityRequirements": [{"schemes": {"a": {"list": ["x"]}}}],
        "capabilities": {"pushNotifications": False},
    }
    old = {
        "default_input_modes": ["text/plain"],
        "skills": [{**SKILL, "input_modes": ["image/png"], "security": [{"a": []}]}],
        "security_schemes": {"a": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        "security": [{"a": ["x"]}],
        "capabilities": {"push_notifications": False},
    }
    assert written(new) == written(old)
    for versions in (("1.0",), ("0.3",)):
        assert written(new, versions) == written(old, versions)


def test_pure_cards() -> None:
    given = {
        "skills": [SKILL],
        "security_schemes": {"a": {"type": "apiKey", "in": "header", "name": "X-Key"}},
        "security": [{"a": []}],
        "capabilities": {"state_transition_history": True},
    }
    new, old = written(given, ("1.0",)), written(given, ("0.3",))
    assert new["securitySchemes"] == {"a": {"apiKeySecurityScheme": {"location": "header", "name": "X-Key"}}}
    assert new["securityRequirements"] == [{"schemes": {"a": {"list": []}}}]
    assert "stateTransitionHistory" not in new["capabilities"]
    assert not {"url", "preferredTransport", "security", "protocolVersion"} & set(new)
    assert old["securitySchemes"] == {"a": {"type": "apiKey", "name": "X-Key", "in": "header"}}
    assert old["security"] == [{"a": []}]
    assert old["url"] == "http://host/a2a"
    assert not {"supportedInterfaces", "securityRequirements"} & set(old)


def test_addresses_that_are_given_are_kept() -> None:
    card = written({"url": "https://agent.example.com/rpc"})
    assert card["url"] == "https://agent.example.com/rpc"
    assert card["supportedInterfaces"][0]["url"] == "https://agent.example.com/rpc"
    interfaces = [{"url": "https://x/y", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]
    assert written({"supported_interfaces": interfaces})["supportedInterfaces"] == interfaces


def test_objects_of_sdks() -> None:
    class Card(pydantic.BaseModel):
        name: str
        default_input_modes: list[str] = pydantic.Field(serialization_alias="defaultInputModes")
        icon_url: str | None = None

    card = written(Card(name="Typed", default_input_modes=["text"]))  # type: ignore[arg-type]
    assert (card["name"], card["defaultInputModes"]) == ("Typed", ["text"])
    assert "iconUrl" not in card


def test_every_fault_of_a_card_is_named() -> None:
    wrong = {
        "name": 5,
        "skils": [],
        "skills": [{"id": "s", "name": "S", "description": "d"}, {**SKILL, "tags": "t"}],
        "capabilities": {"streaming": "yes", "extensions": [{}]},
        "security_schemes": {"a": {"type": "magic"}, "b": {"type": "http"}},
        "security": [{"c": []}],
        "supported_interfaces": [{"url": "x"}],
        "provider": {"url": "https://example.com"},
    }
    with pytest.raises(ConfigurationError) as caught:
        AgentCardWithRuntimeConfig(agent_card=wrong)
    message = str(caught.value)
    for line in (
        "agent_card.name must be a string, not a number",
        "agent_card.skils is no field of an agent card; did you mean 'skills'?",
        "agent_card.skills[0].tags is required",
        "agent_card.skills[1].tags must be a list, not a string",
        "agent_card.capabilities.streaming must be a boolean, not a string",
        "agent_card.capabilities.extensions[0].uri is required",
        "agent_card.securitySchemes.a must have a type",
        "agent_card.securitySchemes.b.scheme is required",
        "agent_card.securityRequirements[0] names 'c', which is not in securitySchemes",
        "agent_card.supportedInterfaces[0].protocolBinding is required",
        "agent_card.provider.organization is required",
    ):
        assert line in message, message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("agent_card", "a card"),
        ("agent_card", 5),
        ("host", ""),
        ("host", "http://x"),
        ("port", 0),
        ("port", "80"),
        ("task_timeout", 0),
        ("task_timeout", "1"),
        ("task_event_timeout", -1),
        ("wellknown_path", "agent.json"),
        ("wellknown_path", "/x/<y>"),
        ("protocol_versions", ["2.0"]),
        ("protocol_versions", []),
    ],
)
def test_wrong_settings_are_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=field):
        AgentCardWithRuntimeConfig(**{field: value})


def test_versions_may_be_written_in_full() -> None:
    assert AgentCardWithRuntimeConfig(protocol_versions="1.0.1").protocol_versions == ("1.0",)
    assert AgentCardWithRuntimeConfig(protocol_versions=["0.3.0", "1.0"]).protocol_versions == ("1.0", "0.3")


def test_the_config_belongs_to_the_app() -> None:
    with pytest.raises(ConfigurationError, match="a2a_config must be AgentCardWithRuntimeConfig"):
        AgentApp(a2a_config={"agent_card": {}})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="protocol_adapters"):
        AgentApp(a2a_config=AgentCardWithRuntimeConfig(), protocol_adapters=[])
    AgentApp(protocol_adapters=[A2AAdapter(AgentCardWithRuntimeConfig())])


async def test_an_extended_card_needs_authentication() -> None:
    app = AgentApp(agent=lambda: "x", a2a_config=AgentCardWithRuntimeConfig(extended_card={"description": "more"}))
    with pytest.raises(ConfigurationError, match="authenticate"):
        async with app.runtime():
            pass


async def test_host_port_and_path() -> None:
    config = AgentCardWithRuntimeConfig(
        host="agent.example.com", port=8443, wellknown_path="/cards/mine.json", agent_card={"version": "3"}
    )
    app = AgentApp(agent=lambda: "x", a2a_config=config)
    async with app.runtime():
        client = app.test_client()
        for path in ("/cards/mine.json", "/.well-known/agent-card.json"):
            card = await (await client.get(path)).get_json()
            assert card["supportedInterfaces"][1]["url"] == "http://agent.example.com:8443"
            assert card["version"] == "3"


async def test_no_handler_no_a2a() -> None:
    app = AgentApp()
    async with app.runtime():
        client = app.test_client()
        assert (await client.get("/.well-known/agent-card.json")).status_code == 404
        assert (await client.post("/a2a", json={})).status_code == 404


@pytest.mark.parametrize(
    ("modes", "kind", "taken"),
    [
        (["text"], "text/plain", True),
        (["text/plain"], "TEXT/PLAIN; charset=utf-8", True),
        (["image/*"], "image/png", True),
        (["image/png"], "image/jpeg", False),
        (["*/*"], "a/b", True),
        (["data"], "application/json", True),
        ([], "text/plain", False),
    ],
)
def test_modes(modes: list[str], kind: str, taken: bool) -> None:
    assert accepts(modes, kind) is taken
