"""What is done with `traceparent` in a program without OpenTelemetry: it is passed on as it came."""

from __future__ import annotations

import sys

import pytest

from trio_agentapp.protocol.trace_context import continued_trace, trace_headers

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def no_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)


def test_headers_are_passed_on() -> None:
    headers = {"traceparent": PARENT, "tracestate": "a=b", "authorization": "secret"}
    with continued_trace(headers):
        assert trace_headers() == {"traceparent": PARENT, "tracestate": "a=b"}
        with continued_trace({}), continued_trace({"traceparent": "none"}):
            assert trace_headers()["traceparent"] == PARENT
    assert trace_headers() == {}


@pytest.mark.parametrize(
    "parent", ["", "x", PARENT + "\r\nx: y", PARENT.upper(), "00-" + "0" * 32 + PARENT[35:], "ff" + PARENT[2:]]
)
def test_faulty_ones_are_not(parent: str) -> None:
    with continued_trace({"traceparent": parent}):
        assert trace_headers() == {}


@pytest.mark.parametrize("state", ["x" * 513, "a=b\r\nx: y", "\xe9=1", ""])
def test_faulty_states_are_left_out(state: str) -> None:
    with continued_trace({"traceparent": PARENT, "tracestate": state}):
        assert trace_headers() == {"traceparent": PARENT}
