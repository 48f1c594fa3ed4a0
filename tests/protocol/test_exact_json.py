"""Integers beyond 64 bits, which orjson reads as floats, are kept exactly or refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agentapp import AgentApp, DataContent, Message
from trio_agentapp.client.request_body import encoded
from trio_agentapp.client.responses import json_of
from trio_agentapp.errors import ItemError, ValidationError
from trio_agentapp.protocol.exact_json import exact_loads
from trio_agentapp.protocol.message_json import encode_message
from trio_agentapp.stores.values import encode_state

BIG = 2**70


@given(
    st.recursive(
        st.integers() | st.integers(2**63, 2**80), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
    )
)
def test_integers_of_every_size_are_read_as_they_are_written(value: Any) -> None:
    raw = json.dumps(value)
    assert exact_loads(raw) == exact_loads(raw.encode()) == value


@pytest.mark.parametrize(
    "raw", ["", "{", "NaN", '{"a":' + "1" * 30, "[" * 2000 + "1" * 20 + "]" * 2000, "1" * 5000]
)
def test_text_that_is_not_json_is_refused(raw: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        exact_loads(raw)


def test_floats_stay_floats() -> None:
    assert exact_loads("[1e30, 0.1234567890123456789012]") == [1e30, 0.1234567890123456789012]


def test_the_client_reads_a_large_integer_exactly() -> None:
    assert json_of(json.dumps({"n": [BIG, -BIG]})) == {"n": [BIG, -BIG]}


def test_a_request_of_the_client_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"an int beyond 64 bits at \$\.own\[1\]"):
        encoded({"own": [1, BIG]})


def test_the_arguments_of_a_tool_call_are_refused() -> None:
    with pytest.raises(ItemError, match=r"an int beyond 64 bits at \$\.n"):
        Message.tool_call("add", {"n": BIG})


def test_a_message_of_a_history_is_refused() -> None:
    with pytest.raises(ItemError, match=r"an int beyond 64 bits at \$\.content\[0\]\.data\.n"):
        encode_message(Message(content=[DataContent({"n": BIG})]))


def test_a_state_is_refused() -> None:
    with pytest.raises(TypeError, match=r"an int beyond 64 bits at \$\.n"):
        encode_state({"n": BIG})


def test_the_message_of_a_celery_task_is_refused() -> None:
    pytest.importorskip("celery")
    from trio_agentapp.tasks.celery.sweeper import encode_message as encode_task

    with pytest.raises(ItemError, match=r"an int beyond 64 bits at \$\.args\[0\]\.n"):
        encode_task("add", [{"n": BIG}], queue="q", expires=1.0, time_limit=None)


async def test_results_defaults_and_the_document_are_exact() -> None:
    app = AgentApp()

    @app.endpoint("/add")
    async def add(n: int = BIG) -> Any:
        return {"n": n}

    async with app.runtime():
        client = app.test_client()
        assert json.loads(await (await client.post("/add")).get_data()) == {"n": BIG}
        document = json.loads(await (await client.get("/openapi.json")).get_data())
        (parameter,) = document["paths"]["/add"]["post"]["parameters"]
        assert parameter["schema"]["default"] == BIG
        assert isinstance(parameter["schema"]["default"], int)
