"""What an app is told: loudly checked, completed from the environment (DESIGN, section 2)."""

from __future__ import annotations

from typing import Any

import pytest

from trio_agentapp import AgentApp, AgentAppError, CancelAfter
from trio_agentapp.app.settings import Settings, read_port


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("app_nam", "app_name"),
        ("drain_timout", "drain_timeout"),
        ("on_disconect", "on_disconnect"),
        ("authorise", "authorize"),
        ("befor_start", "before_start"),
    ],
)
def test_an_unknown_parameter_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(TypeError, match=f"{wrong!r}.*did you mean {near!r}"):
        AgentApp(**{wrong: 1})


def test_an_unknown_parameter_like_none_lists_all() -> None:
    with pytest.raises(TypeError, match=r"'zzz'.*app_name.*drain_timeout"):
        AgentApp(zzz=1)


def test_parameters_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        AgentApp("Friday")  # type: ignore[call-arg]


WRONG: list[tuple[str, Any]] = [
    ("app_name", 5),
    ("app_name", None),
    ("app_description", b"x"),
    ("agent", "module:agent"),
    ("endpoint_path", "process"),
    ("endpoint_path", "/"),
    ("endpoint_path", ""),
    ("endpoint_path", 5),
    ("response_type", "html"),
    ("response_type", None),
    ("response_type", []),
    ("stream", "yes"),
    ("stream", 1),
    ("lifespan", 3),
    ("before_start", "x"),
    ("after_finish", 7),
    ("interrupt_backend", object()),
    ("on_disconnect", "explode"),
    ("on_disconnect", 5),
    ("on_disconnect", None),
    ("authenticate", "token"),
    ("authorize", True),
    ("require_auth", "yes"),
    ("max_body_bytes", 0),
    ("max_body_bytes", -1),
    ("max_body_bytes", 1.5),
    ("max_body_bytes", "1MB"),
    ("max_body_bytes", True),
    ("read_timeout", -1),
    ("read_timeout", "15"),
    ("read_timeout", float("nan")),
    ("read_timeout", float("inf")),
    ("read_timeout", True),
    ("debug", 1),
    ("sse_done", "no"),
    ("cleanup_budget", None),
    ("cleanup_budget", -0.1),
    ("drain_timeout", "soon"),
    ("gc_threshold", -1),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_names_its_parameter(name: str, value: Any) -> None:
    with pytest.raises(AgentAppError, match=name) as caught:
        AgentApp(**{name: value})
    assert isinstance(caught.value, ValueError)


def test_a_lifespan_that_was_not_decorated() -> None:
    async def lifespan(app: AgentApp) -> Any:
        yield

    with pytest.raises(AgentAppError, match="asynccontextmanager"):
        AgentApp(lifespan=lifespan)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("app_name", "Monday", "Monday"),
        ("drain_timeout", "5", 5.0),
        ("drain_timeout", " 2.5 ", 2.5),
        ("drain_timeout", "0", 0.0),
        ("max_body_bytes", "2048", 2048),
        ("debug", "true", True),
        ("debug", "1", True),
        ("debug", "Yes", True),
        ("debug", "ON", True),
        ("stream", "false", False),
        ("stream", "0", False),
        ("stream", "No", False),
        ("endpoint_path", "/chat", "/chat"),
        ("response_type", "json", "json"),
        ("on_disconnect", "continue", "continue"),
        ("require_auth", "off", False),
    ],
)
def test_a_setting_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any) -> None:
    monkeypatch.setenv(f"AGENTAPP_{name.upper()}", text)
    found = getattr(AgentApp().settings, name)
    assert found == value
    assert type(found) is type(value)


def test_the_code_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPP_DRAIN_TIMEOUT", "5")
    monkeypatch.setenv("AGENTAPP_APP_NAME", "Monday")
    app = AgentApp(drain_timeout=7)
    assert app.settings.drain_timeout == 7
    assert app.app_name == "Monday"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("drain_timeout", "soon"),
        ("drain_timeout", ""),
        ("drain_timeout", "-5"),
        ("drain_timeout", "inf"),
        ("drain_timeout", "nan"),
        ("max_body_bytes", "1.5"),
        ("max_body_bytes", "0"),
        ("debug", "maybe"),
        ("debug", ""),
        ("response_type", "html"),
        ("endpoint_path", "chat"),
        ("on_disconnect", "explode"),
    ],
)
def test_a_variable_that_does_not_parse_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """With its name; a value that parses and cannot be is told by the parameter's."""
    monkeypatch.setenv(f"AGENTAPP_{name.upper()}", text)
    with pytest.raises(AgentAppError, match=f"(?i)(AGENTAPP_)?{name}"):
        AgentApp()


def test_functions_do_not_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPP_LIFESPAN", "os:system")
    monkeypatch.setenv("AGENTAPP_AGENT", "os:system")
    assert AgentApp().settings.lifespan is None
    assert AgentApp().settings.agent is None


def test_the_defaults() -> None:
    settings = AgentApp().settings
    assert settings == Settings()
    assert (settings.app_name, settings.app_description, settings.endpoint_path) == ("Agent", "", "/process")
    assert (settings.max_body_bytes, settings.read_timeout) == (2**20, 15)
    assert (settings.cleanup_budget, settings.drain_timeout) == (30, 30)
    assert (settings.on_disconnect, settings.debug, settings.sse_done) == ("cancel", False, False)


def test_cancel_after_is_a_policy() -> None:
    assert AgentApp(on_disconnect=CancelAfter(5)).settings.on_disconnect == CancelAfter(5)


@pytest.mark.parametrize("text", ["", "x", "-1", "65536", "80.5", "0x50", "\u0661\u0662"])
def test_a_port_that_is_none(text: str) -> None:
    with pytest.raises(AgentAppError, match="PORT"):
        read_port({"PORT": text}, 8090)


def test_ports() -> None:
    assert read_port({}, 8090) == 8090
    assert read_port({"PORT": "9000"}, 8090) == 9000
    assert read_port({"PORT": "0"}, 8090) == 0
