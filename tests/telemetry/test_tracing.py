"""Traces of runs, as the collector of the example gets them from a real exporter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .collected import PARENT, TRACE, Collector, Span, collecting, one

PROGRAM = Path(__file__).with_name("traced_app.py")


class Collected:
    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self.url = collector.url

    def of(self, case: str, **environment: str) -> list[Span]:
        """Run a case of `traced_app`, end the collector, and return what it has printed."""
        known = {key: value for key, value in os.environ.items() if not key.startswith(("AGENTAPP_", "OTEL_"))}
        done = subprocess.run(
            [sys.executable, "-W", "error::DeprecationWarning", str(PROGRAM), case],
            env={**known, "OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "AGENTAPP_TRACES": "1", **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self.log = done.stderr
        return self._collector.end()


@pytest.fixture
def collected() -> Iterator[Collected]:
    with collecting() as collector:
        yield Collected(collector)


def test_a_run_its_tools_and_its_model_are_one_trace(collected: Collected) -> None:
    spans = collected.of("agent")
    run = one(spans, "invoke_agent Friday")
    assert {span.trace for span in spans} == {TRACE}
    assert (run.parent, run.service) == (PARENT, "Friday")
    assert run.facts["gen_ai.operation.name"] == "invoke_agent"
    assert run.facts["agentapp.run.state"] == "FINISHED"
    assert one(spans, "claim").parent == PARENT
    chats = [span for span in spans if span.name == "chat scripted"]
    assert [chat.parent for chat in chats] == [run.id, run.id]
    assert chats[0].facts["gen_ai.usage.input_tokens"] == "10"
    tool = one(spans, "execute_tool clock")
    assert (tool.parent, tool.facts["gen_ai.tool.name"]) == (run.id, "clock")
    assert one(spans, "inside the tool").parent == tool.id
    # What the model's server was sent.
    sent = re.findall(rf"traceparent 00-{TRACE}-(\w+)-01", collected.log)
    assert sent == [chat.id for chat in chats]
    assert "Rome" not in " ".join(span.line for span in spans)
    assert "anna" not in " ".join(span.line for span in spans)


def test_content_is_recorded_if_it_is_asked_for(collected: Collected) -> None:
    spans = collected.of("agent", OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="true")
    assert "Rome" in one(spans, "execute_tool clock").line
    assert "What time is it" in next(span.line for span in spans if span.name == "chat scripted")


def test_tasks_threads_and_asyncio_keep_the_context(collected: Collected) -> None:
    spans = collected.of("context")
    runs = {span.id for span in spans if span.name.startswith("invoke_agent")}
    assert len(runs) == 3
    for name in ("in a child task", "in a thread", "in a sync handler", "in an asyncio task"):
        assert one(spans, name).parent in runs
        assert one(spans, name).trace == TRACE


def test_a_stop_is_linked_to_the_run_that_it_stopped(collected: Collected) -> None:
    spans = collected.of("stop")
    run, stop, cleanup = one(spans, "invoke_agent Friday"), one(spans, "stop"), one(spans, "cleanup")
    assert stop.trace != run.trace
    assert stop.facts["link"] == run.id
    assert (cleanup.parent, cleanup.facts["agentapp.cleanup"]) == (run.id, "done")
    assert run.facts["agentapp.run.cause"] == "stopped"


def test_a_task_continues_the_trace_of_its_request(collected: Collected) -> None:
    spans = collected.of("tasks", AGENTAPP_LOG_FORMAT="json")
    task = one(spans, "task /work")
    assert (task.trace, task.parent, task.facts["agentapp.task.state"]) == (TRACE, PARENT, "finished")
    assert one(spans, "inside the task").parent == task.id
    failed = one(spans, "task /fail")
    assert (failed.facts["failed"], failed.trace) == ("exception", TRACE)
    assert "private" not in failed.line
    assert f'"trace_id":"{TRACE}"' in next(line for line in collected.log.splitlines() if "private" in line)
    # A task that waited is not a part of the trace of the request that made room for it.
    assert one(spans, "task /later").trace == "1af7651916cd43dd8448eb211c80319c"


def test_a_failed_run_is_an_error_without_its_text(collected: Collected) -> None:
    spans = collected.of("failure")
    run = one(spans, "invoke_agent Friday")
    assert run.facts["failed"] == "exception"
    assert "private" not in run.line


def test_records_of_a_run_have_its_trace(collected: Collected) -> None:
    spans = collected.of("agent", AGENTAPP_LOG_FORMAT="json")
    [ended] = [line for line in collected.log.splitlines() if "has ended" in line]
    assert f'"trace_id":"{one(spans, "claim").trace}"' in ended


def test_the_switches_of_the_other_product_work(collected: Collected) -> None:
    spans = collected.of(
        "failure",
        OTEL_EXPORTER_OTLP_ENDPOINT="",
        AGENTAPP_TRACES="0",
        TRACE_ENABLE_REPORT="on",
        TRACE_ENDPOINT=f"{collected.url}/v1/traces",
        TRACE_ENABLE_LOG="yes",
        SERVICE_NAME="renamed",
    )
    assert one(spans, "invoke_agent Friday").service == "renamed"
    assert "span 'invoke_agent Friday' took" in collected.log


def test_an_app_that_is_opened_twice_is_traced_twice(collected: Collected) -> None:
    assert len([span for span in collected.of("twice") if span.name == "invoke_agent Friday"]) == 2


def test_sampling_is_the_sdks_own(collected: Collected) -> None:
    assert collected.of("twice", OTEL_TRACES_SAMPLER="always_off") == []


def test_without_the_setting_opentelemetry_is_not_loaded() -> None:
    program = "import sys, trio_agentapp; trio_agentapp.AgentApp(); print('opentelemetry' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"
