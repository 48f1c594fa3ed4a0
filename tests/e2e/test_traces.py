"""What a collector gets of calls that pass through several processes: one trace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import trio
from opentelemetry import trace

from trio_agentapp import AgentClient
from trio_agentapp.testing.redis_server import RedisServer

from ..telemetry.collected import PARENT, TRACE, Collector, Span, collecting, one
from .celery_worker import ended, submit
from .conftest import Start
from .harness import Server

OTHER_PARENT = "c8be7c827a314442"


@pytest.fixture
async def redis() -> AsyncIterator[str]:
    async with RedisServer("valkey") as server:
        yield server.url


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def inside(span_id: str) -> trace.Span:
    """The current span of a program that uses OpenTelemetry."""
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    return trace.NonRecordingSpan(trace.SpanContext(int(TRACE, 16), int(span_id, 16), False, flags))


def started(start: Start, name: str, redis: str, collector: Collector, **env: str) -> Server:
    known = {"NAME": name, "REDIS_URL": redis, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    return start("traced", env={**known, **env}, ready=False)


async def end(collector: Collector, *servers: Server) -> list[Span]:
    for server in servers:
        server.send_signal()
    for server in servers:
        await server.wait_exit()
    return collector.end()


async def test_a_run_over_two_nodes_is_one_trace(start: Start, redis: str, collector: Collector) -> None:
    """A client asks node A, whose agent asks that of node B, and stops the run of A through B."""
    a, b = (started(start, name, redis, collector) for name in "AB")
    urls = []
    for server in (a, b):
        server.wait_ready()
        urls.append(f"http://127.0.0.1:{server.port}")
    with trio.fail_after(60):
        async with AgentClient(urls[0]) as to_a, AgentClient(urls[1]) as to_b:
            async with AgentClient(urls[1], transport="websocket") as socket:
                with trace.use_span(inside(PARENT)):
                    async with to_a.run({"input": "hi", "ask": urls[1]}, session_id="anna") as events:
                        async for event in events:
                            if event.get("text") == "passed on ":
                                break
                        assert (await to_b.stop(run_id=events.run_id, wait=True)).stopped
                    async with socket.run("over a socket") as events:
                        _ = [event async for event in events]
                # The socket is the same, and the span is another.
                with trace.use_span(inside(OTHER_PARENT)):
                    async with socket.run("over a socket") as events:
                        _ = [event async for event in events]
        spans = await end(collector, a, b)
    assert {span.trace for span in spans} == {TRACE}
    of_a = one(spans, "invoke_agent A")
    assert (of_a.parent, of_a.facts["agentapp.run.cause"]) == (PARENT, "stopped")
    assert one(spans, "stop").service == "B"
    assert one(spans, "stop").parent == PARENT
    of_b = [span for span in spans if span.name == "invoke_agent B"]
    assert sorted(span.parent for span in of_b) == sorted([of_a.id, PARENT, OTHER_PARENT])
    assert "anna" not in " ".join(span.line for span in spans)


async def test_a_task_of_a_worker_continues_the_trace(start: Start, redis: str, collector: Collector) -> None:
    server = started(start, "Tasks", redis, collector, BROKER=redis)
    server.wait_ready()
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    for path, fail in (("done", False), ("failed", True)):
        task_id = await submit(server, "/work", {"fail": fail}, headers=headers)
        assert (await ended(server, "/work", task_id, 30))["status"] == ("failed" if fail else "finished"), path
    spans = await end(collector, server)
    tasks = [span for span in spans if span.name == "task /work"]
    assert {(span.trace, span.parent) for span in tasks} == {(TRACE, PARENT)}
    assert [span.facts.get("failed") for span in tasks] == [None, "exception"]
    insides = [span for span in spans if span.name == "inside the task"]
    assert [span.parent for span in insides] == [span.id for span in tasks]
    assert "private" not in " ".join(span.line for span in spans)
