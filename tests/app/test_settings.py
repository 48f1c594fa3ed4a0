"""Tests of the settings of an app: wrong values are refused, missing ones come from the environment."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import attrs
import pytest

import trio_agentapp
from trio_agentapp import AgentApp, AgentAppError, CancelAfter
from trio_agentapp.app.serving import address
from trio_agentapp.app.settings import Settings
from trio_agentapp.app.variables import read_port, unknown_variables
from trio_agentapp.events import LocalEventStore


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
    with pytest.raises(TypeError, match=r"by name: AgentApp\(app_name='Friday'\)"):
        AgentApp("Friday")  # type: ignore[arg-type]


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
    ("event_store", "memory"),
    ("event_store", "redis://:secret@localhost"),
    ("event_store", object()),
    ("event_store", LocalEventStore),
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
    ("cors_origins", "https://app.example.com"),
    ("cors_origins", ("https://app.example.com", 5)),
    ("cors_origins", None),
    ("allowed_hosts", "agent.example.com"),
    ("allowed_hosts", {"agent.example.com"}),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_names_its_parameter(name: str, value: Any) -> None:
    with pytest.raises(AgentAppError, match=name) as caught:
        AgentApp(**{name: value})
    assert isinstance(caught.value, ValueError)
    assert ":secret@" not in str(caught.value)


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
        (
            "cors_origins",
            "https://a.example, http://localhost:5173,",
            ("https://a.example", "http://localhost:5173"),
        ),
        ("cors_origins", "", ()),
        ("allowed_hosts", "agent.example.com,*.example.org", ("agent.example.com", "*.example.org")),
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


GIVEN = {"interrupt_redis_url": "localhost:6379", "broker_url": "localhost:5672", "root_path": "agents"}
BAD = {str: "", bool: "maybe", int: "-1", float: "soon"}
NO_TEXT_IS_BAD = {"app_name", "app_description", "redis_prefix"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (field.name, GIVEN.get(field.name, bad))
        for field in attrs.fields(Settings)
        if field.name not in NO_TEXT_IS_BAD
        if (bad := BAD.get(field.metadata.get("environment", type(field.default)))) is not None
    ],
)
def test_every_variable_is_refused_by_its_name_and_value(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"AGENTAPP_{name.upper()}", text)
    with pytest.raises(AgentAppError) as caught:
        AgentApp()
    message = str(caught.value)
    assert message.startswith(f"AGENTAPP_{name.upper()}")
    assert ("***" if name == "admin_token" else repr(text)) in message
    assert caught.value.__cause__ is None
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames == ["test_every_variable_is_refused_by_its_name_and_value", "__init__"]


NO_ORIGINS = [
    "*",
    "*.example.com",
    "https://*.example.com",
    "null",
    "app.example.com",
    "localhost:5173",
    "//app.example.com",
    "https://",
    "https://app.example.com/",
    "https://app.example.com/path",
    "https://app.example.com?x",
    "https://me@app.example.com",
    "https://App.example.com",
    "https://app.example.com:443",
    "http://app.example.com:80",
    "http://app.example.com:",
    "http://app.example.com:0",
    "https://app.example.com\n",
    "https://müller.example",
    "https://a.example https://b.example",
]
NO_HOSTS = [
    "agent.example.com:8090",
    "http://agent.example.com",
    "agent.example.com/",
    "a.*.example",
    "*x",
    "A.example",
    "",
]


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("cors_origins", each) for each in NO_ORIGINS), *(("allowed_hosts", each) for each in NO_HOSTS)],
)
def test_a_wrong_origin_or_host_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(AgentAppError) as caught:
        AgentApp(**{name: ("a.example" if name == "allowed_hosts" else "https://a.example", value)})
    assert str(caught.value).startswith(f"{name} must ")
    assert repr(value) in str(caught.value)
    if value and not value.endswith("\n"):
        monkeypatch.setenv(f"AGENTAPP_{name.upper()}", value)
        with pytest.raises(AgentAppError) as caught:
            AgentApp()
        assert str(caught.value).startswith(f"AGENTAPP_{name.upper()}")
        assert repr(value) in str(caught.value)


def test_all_origins_are_refused_with_the_reason() -> None:
    with pytest.raises(AgentAppError) as caught:
        AgentApp(cors_origins=["*"])
    assert str(caught.value) == (
        "cors_origins must name each origin, not '*': every page could use this app with the cookies and in the "
        "network of its reader"
    )


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "http://localhost:5173",
        "http://[::1]:8080",
        "http://127.0.0.1:443",
        "https://xn--mller-kva.example",
        "chrome-extension://abcdefghijklmnop",
        "capacitor://localhost",
    ],
)
def test_origins(origin: str) -> None:
    assert AgentApp(cors_origins=[origin]).settings.cors_origins == (origin,)


def test_the_argument_is_named_where_the_argument_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPP_DRAIN_TIMEOUT", "5")
    with pytest.raises(AgentAppError, match=r"^drain_timeout must be"):
        AgentApp(drain_timeout=-1)


@pytest.mark.parametrize("name", ["interrupt_redis_url", "state_url", "backend_url", "broker_url"])
@pytest.mark.parametrize(
    "url", ["redis://joe:se@c/ret:x@host:port/1", "joe:se@c/ret:x@host", "ftp://joe:se@c/ret:x@h"]
)
def test_no_password_is_shown(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    monkeypatch.setenv(f"AGENTAPP_{name.upper()}", url)
    if name == "broker_url":  # Celery looks at it, later
        monkeypatch.setenv("AGENTAPP_BACKEND_URL", url)
    with pytest.raises(AgentAppError, match=r"joe:\*\*\*@h") as caught:
        AgentApp()
    assert "ret" not in str(caught.value)


def test_variables_that_mean_nothing() -> None:
    environment = {
        "AGENTAPP_DRAIN_TIMEOT": "5",
        "AGENTAPP_PORT": "80",
        "AGENTAPP_LIFESPAN": "x",
        "AGENTAPP_ZZZ": "1",
        "AGENTAPP_DRAIN_TIMEOUT": "5",
        "PORT": "80",
        "OTHER_DRAIN_TIMEOT": "5",
    }
    first, lifespan, port, zzz = unknown_variables(environment)
    assert first == "AGENTAPP_DRAIN_TIMEOT is set and means nothing; did you mean AGENTAPP_DRAIN_TIMEOUT?"
    assert lifespan == "AGENTAPP_LIFESPAN is set and means nothing; AgentApp(lifespan=...) is set in code only"
    assert port == "AGENTAPP_PORT is set and means nothing; did you mean PORT?"
    assert zzz.startswith("AGENTAPP_ZZZ is set and means nothing")


def test_what_kubernetes_sets_beside_a_service_is_none_of_them() -> None:
    names = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR")
    assert unknown_variables({f"AGENTAPP_{name}": "tcp://10.0.0.1:80" for name in names}) == []
    assert unknown_variables({f"AGENTAPP_WEB_{name}": "tcp://10.0.0.1:80" for name in names}) == []


def test_no_variable_of_the_package_is_unknown() -> None:
    sources = "".join(path.read_text() for path in Path(trio_agentapp.__file__).parent.rglob("*.py"))
    used = set(re.findall(r"AGENTAPP_[A-Z_]+[A-Z]", sources)) - {"AGENTAPP_WORKER"}  # TRIO_AGENTAPP_WORKER
    assert "AGENTAPP_HOME" in used
    assert unknown_variables(dict.fromkeys(used, "x")) == []


async def test_they_are_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("AGENTAPP_DRAIN_TIMEOT", "5")
    app = AgentApp()
    for _ in range(2):
        async with app.runtime():
            pass
    assert [record.getMessage() for record in caplog.records if "DRAIN_TIMEOT" in record.getMessage()] == [
        "AGENTAPP_DRAIN_TIMEOT is set and means nothing; did you mean AGENTAPP_DRAIN_TIMEOUT?"
    ]


@pytest.mark.parametrize("host", ["", "x86_64-conda-linux-gnu", "203.0.113.7", "[::g]", "a" * 300])
def test_a_host_that_is_none(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("HOST", host)
    with pytest.raises(AgentAppError, match="^HOST=" + re.escape(repr(host))):
        address(None, None)
    assert address("127.0.0.1", 1) == ("127.0.0.1", 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_hosts(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("HOST", host)
    monkeypatch.delenv("PORT", raising=False)
    assert address(None, None) == (host, 8090)
    with pytest.raises(AgentAppError, match="host must not be empty"):
        address("", None)


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
