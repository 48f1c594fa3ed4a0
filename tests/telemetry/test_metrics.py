"""The page /metrics: its numbers, and the dashboard, rules and reference that speak of its names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from trio_agentapp import AgentApp, Principal, Run
from trio_agentapp.abc import Instrument, NodeFigures, RunEnd, RunFacts
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.protocol.lifecycle import Cause
from trio_agentapp.telemetry.metrics import Metrics

from ..app.conftest import chat_body, post, serve

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/monitoring"
OF_PROMETHEUS = {"up"}
OF_THE_CLIENT_LIBRARY = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}
NAME = re.compile(r"\b(?:agent|process)_[a-z_]+\b|\bup\b")


def chatting_app(**options: Any) -> AgentApp:
    app = AgentApp(metrics=True, **options)

    @app.query()
    async def chat(self: Any, msgs: Any, run: Run) -> Any:
        text = msgs[-1].text
        if text == "fail":
            raise ValueError(text)
        yield "one "
        if text == "wait":
            await trio.sleep_forever()
        yield "two"

    return app


async def samples_of(client: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain")
    text = (await response.get_data()).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


async def test_runs_are_counted_by_entry_and_outcome() -> None:
    app = chatting_app()
    async with serve(app) as client:
        for text in ("hi", "hi", "fail"):
            await post(client, "/process", chat_body(text))
        async with app.stream_query("hi") as events:
            _ = [event async for event in events]
        found = await samples_of(client)
    assert found[key("agent_runs_total", entry="process", outcome="finished")] == 2
    assert found[key("agent_runs_total", entry="process", outcome="error")] == 1
    assert found[key("agent_runs_total", entry="code", outcome="finished")] == 1
    assert found[key("agent_run_ends_total", cause="returned")] == 3
    assert found[key("agent_run_ends_total", cause="exception")] == 1
    assert found[key("agent_claims_total", result="granted")] == 4
    assert found[key("agent_run_duration_seconds_count", entry="process")] == 3
    assert found[key("agent_first_event_seconds_count", entry="process")] == 2
    assert found[key("agent_runs_active")] == 0
    assert found[key("agent_backend_up")] == 1
    assert found[key("agent_events_total")] > 3 * 8
    assert found[key("agent_tasks")] > 5


async def test_a_stop_has_a_latency_and_a_live_run_is_shown() -> None:
    app = chatting_app()
    async with serve(app) as client, trio.open_nursery() as nursery:
        nursery.start_soon(post, client, "/process", chat_body("wait", session_id="s1", user_id="u1"))
        while (await samples_of(client))[key("agent_subscribers")] == 0:
            await trio.sleep(0.01)
        before = await samples_of(client)
        assert before[key("agent_runs_active")] == 1
        status, busy = await post(client, "/process", chat_body("hi", session_id="s1", user_id="u1"))
        assert (status, busy["code"]) == (409, "session_busy")
        await app.stop_chat("u1", "s1", wait=True)
        found = await samples_of(client)
    assert found[key("agent_stop_latency_seconds_count", scope="local")] == 1
    assert found[key("agent_runs_total", entry="process", outcome="stopped")] == 1
    assert found[key("agent_claims_total", result="busy")] == 1
    assert found[key("agent_runs_active")] == 0


async def test_no_label_holds_a_user_a_session_or_a_run() -> None:
    async with serve(chatting_app()) as client:
        await post(client, "/process", chat_body(user_id="anna", session_id="secret", id="run-of-anna"))
        response = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        text = (await response.get_data()).decode()
    assert response.content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    assert not re.search("anna|secret", text)


def by_header(request: Any) -> Principal | None:
    name = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return Principal(name) if name in ("anna", "prometheus") else None


def only_prometheus(principal: Principal | None, action: str, *target: str | None) -> bool:
    assert (action, target) == ("metrics", (None, None, None))
    return principal is not None and principal.user_id == "prometheus"


TOKEN = "correct-horse-battery"
HOOKS = {"authenticate": by_header}


@pytest.mark.parametrize(
    ("options", "statuses"),
    [
        ({}, [200, 200, 200, 200]),
        ({"admin_token": TOKEN}, [200, 200, 200, 200]),
        (HOOKS, [401, 403, 403, 401]),
        ({**HOOKS, "admin_token": TOKEN}, [401, 403, 403, 200]),
        ({**HOOKS, "authorize": only_prometheus}, [401, 403, 200, 401]),
        ({"authorize": only_prometheus}, [403, 403, 403, 403]),
    ],
)
async def test_with_hooks_the_page_is_for_those_who_may_read_it(
    options: dict[str, Any], statuses: list[int]
) -> None:
    found = []
    async with serve(chatting_app(**options)) as client:
        for bearer in ("", "anna", "prometheus", TOKEN):
            headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
            response = await client.get("/metrics", headers=headers)
            found.append(response.status_code)
            assert (b"agent_runs_total" in await response.get_data()) is (response.status_code == 200)
    assert found == statuses


async def test_without_the_setting_there_is_no_page() -> None:
    app = AgentApp()
    async with serve(app) as client:
        assert (await client.get("/metrics")).status_code == 404


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"trio-agentapp\[metrics\]"):
        AgentApp(metrics=True)


def test_without_metrics_their_library_is_not_loaded() -> None:
    program = "import sys, trio_agentapp; trio_agentapp.AgentApp(); print('prometheus_client' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


# Instruments.


class Noting(Instrument):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def claimed(self, run: RunFacts, result: str, seconds: float) -> None:
        self.seen.append(f"{run.key.session_id} {result}")

    def ended(self, run: RunFacts, end: RunEnd) -> None:
        self.seen.append(f"{run.entry} {end.ending.cause.value} {end.stop_seconds}")


class Failing(Instrument):
    async def serve(self, figures: Any) -> None:
        raise LookupError("serve")

    def claiming(self, run: RunFacts) -> Any:
        raise LookupError("claiming")

    def claimed(self, run: RunFacts, result: str, seconds: float) -> None:
        raise LookupError("claimed")

    def running(self, run: RunFacts) -> Any:
        raise LookupError("running")

    def ended(self, run: RunFacts, end: RunEnd) -> None:
        raise LookupError("ended")

    def stopping(self, run_id: Any, key: Any) -> Any:
        raise LookupError("stopping")


async def test_an_instrument_of_the_user_is_told_of_each_run() -> None:
    noting = Noting()
    app = chatting_app(instruments=[noting])
    async with serve(app) as client:
        await post(client, "/process", chat_body(session_id="s1"))
    assert noting.seen == ["s1 granted", "process returned None"]


async def test_an_instrument_that_raises_changes_no_run(caplog: pytest.LogCaptureFixture) -> None:
    app = chatting_app(instruments=[Failing()])
    async with serve(app) as client:
        for _ in range(2):
            status, body = await post(client, "/process", chat_body(session_id="s1"))
            assert (status, body["status"]) == (200, "completed")
        await app.stop_chat("s1", "s1")
    failed = [record.getMessage().partition(" ")[0] for record in caplog.records if record.levelname == "ERROR"]
    calls = ("serve", "claiming", "claimed", "running", "ended", "stopping")
    assert sorted(failed) == sorted(f"Failing.{name}" for name in calls)


def test_instruments_of_another_type_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="list of Instrument objects"):
        AgentApp(instruments=["prometheus"])  # type: ignore[list-item]


async def test_an_outage_and_a_blocked_loop_are_counted(autojump_clock: trio.testing.MockClock) -> None:
    metrics = Metrics()
    figures = NodeFigures(
        live=0, queued=0, ended=0, stuck=("r",), subscribers=0, events=0, draining=False, backend_up=True
    )
    up = [True]

    def now() -> NodeFigures:
        return attrs.evolve(figures, backend_up=up[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(metrics.serve, now)
        for state in (True, False, False, True, False):
            up[0] = state
            await trio.sleep(2)
        autojump_clock.jump(5)
        await trio.sleep(1)
        found = values_of(metrics)
        nursery.cancel_scope.cancel()
    assert found["agent_backend_outages_total"] == 2
    assert found["agent_backend_up"] == 0
    assert found["agent_runs_stuck"] == 1
    assert found["agent_loop_blocked_total"] >= 1


def values_of(metrics: Metrics) -> dict[str, float]:
    text = metrics.page("")[0].decode()
    return {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}


# What speaks of the names.


@pytest.fixture(scope="module")
def names() -> set[str]:
    """All names of samples, those without a value yet included."""
    families = [family for family in Metrics().collect() if family.name.startswith("agent_")]
    found = set(OF_THE_CLIENT_LIBRARY)
    for family in families:
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}[family.type]
        found |= {family.name + suffix for suffix in suffixes}
    return found


def queries() -> list[tuple[str, str]]:
    dashboard = json.loads((EXAMPLE / "dashboard.json").read_text())
    rules = yaml.safe_load((EXAMPLE / "alerts.yml").read_text())
    of_panels = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]
    return of_panels + [(rule["alert"], rule["expr"]) for group in rules["groups"] for rule in group["rules"]]


@pytest.mark.parametrize(("title", "query"), queries())
def test_a_query_uses_names_that_exist(title: str, query: str, names: set[str]) -> None:
    used = set(NAME.findall(query))
    assert used
    assert used <= names | OF_PROMETHEUS


LABELS = {
    "agent_runs_total": {"entry", "outcome"},
    "agent_run_ends_total": {"cause"},
    "agent_run_duration_seconds_bucket": {"entry"},
    "agent_first_event_seconds_bucket": {"entry"},
    "agent_stop_latency_seconds_bucket": {"scope"},
    "agent_claims_total": {"result"},
}


@pytest.mark.parametrize(("title", "query"), queries())
def test_a_query_uses_labels_that_exist(title: str, query: str) -> None:
    used = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in re.split(r",\s*", group)}
    used |= {label for group in re.findall(r"\{([^}]*)\}", query) for label in re.findall(r"(\w+)=", group)}
    known = set().union(*(LABELS.get(name, set()) for name in NAME.findall(query)))
    assert used <= known | {"le", "instance", "job"}


def test_the_reference_lists_every_metric(names: set[str]) -> None:
    text = (ROOT / "docs/reference/metrics.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE))
    plain = {re.sub("_(bucket|sum|count)$", "", name) for name in names}
    assert listed == plain
    for cause in Cause:
        assert f"`{cause.value}`" in text


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Debian's package prometheus")
async def test_promtool_accepts_the_page_and_the_rules() -> None:
    async with serve(chatting_app()) as client:
        await post(client, "/process", chat_body())
        page = await (await client.get("/metrics")).get_data()
    for arguments, data in ((["metrics"], page), (["rules", str(EXAMPLE / "alerts.yml")], b"")):
        checked = await trio.run_process(
            [str(PROMTOOL), "check", *arguments], stdin=data, capture_stdout=True, capture_stderr=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
