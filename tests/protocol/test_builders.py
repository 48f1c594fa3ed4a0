"""The builders under the names of the replaced product make the same events as the runtime."""

from __future__ import annotations

from typing import Any

import pytest

from trio_agentapp import protocol
from trio_agentapp.builders import ResponseBuilder
from trio_agentapp.errors import ItemError
from trio_agentapp.protocol import DataContent, FileContent, Message, TextContent, encode_event
from trio_agentapp.protocol.stored_events import decode_event


def like(events: Any) -> list[Any]:
    """What is the same for each response: all but ids and times."""
    ids: dict[str, str] = {}

    def plain(event: Any) -> Any:
        own = {name: getattr(event, name, None) for name in ("object", "status", "type", "role", "index", "delta")}
        own |= {"text": getattr(event, "text", None), "payload": getattr(event, "payload", None)}
        own["number"] = event.sequence_number
        id = getattr(event, "msg_id", None) or getattr(event, "id", "")
        own["id"] = ids.setdefault(id, f"id {len(ids)}")
        for name in ("content", "output"):
            if (inner := getattr(event, name, None)) is not None and event.object != "content":
                own[name] = [plain(each) for each in inner]
        return own

    return [plain(event) for event in events]


def test_a_text_has_the_events_that_a_handler_makes() -> None:
    runtime = protocol.ResponseBuilder("r", "s", created_at=1)
    expected = [*runtime.start(), *runtime.add("Hel"), *runtime.add("lo"), *runtime.complete(completed_at=1)]
    events = [*ResponseBuilder("s").generate_streaming_response(["Hel", "lo"])]
    assert like(events) == like(expected)
    assert [decode_event(encode_event(event)) for event in events] == events


def test_a_tool_call_in_pieces_and_other_parts() -> None:
    runtime = protocol.ResponseBuilder("r", "s", created_at=1)
    expected = [*runtime.start(), *runtime.add((Message(type="function_call"), False))]
    expected += runtime.add(DataContent({"call_id": "c", "name": "f", "arguments": ""}, delta=True))
    expected += runtime.add(DataContent({"arguments": "{}"}, delta=True))
    parts: Any = [TextContent("a"), DataContent({"x": 1, "y": 2}), FileContent(file_url="u", filename="n")]
    expected += runtime.add(Message(content=parts))
    expected += runtime.complete(completed_at=1)

    response = ResponseBuilder("s")
    events: list[Any] = [response.created(), response.in_progress()]
    call = response.create_message_builder(message_type="function_call")
    events.append(call.get_message_data())
    data = call.create_content_builder("data")
    events.append(data.add_data_delta({"call_id": "c", "name": "f", "arguments": ""}))
    events.append(data.add_data_delta({"arguments": "{}"}))
    events += [data.complete(), call.complete()]
    message = response.create_message_builder()
    events.append(message.get_message_data())
    text = message.create_content_builder()
    text.set_text("a")
    events.append(text.complete())
    other = message.create_content_builder("data")
    other.set_data({"x": 1})
    assert other.update_data("y", 2) == DataContent({"x": 1, "y": 2})
    events.append(other.complete())
    events.append(message.add_content(FileContent(file_url="u", filename="n")))
    events += [message.complete(), response.completed(usage={"tokens": 1})]
    assert like(events) == like(expected)
    assert events[-1].usage == {"tokens": 1}


@pytest.mark.parametrize(
    ("kind", "method", "args", "field"),
    [
        ("image", "set_image_url", ("u",), "image_url"),
        ("video", "set_video_url", ("u",), "video_url"),
        ("refusal", "set_refusal", ("no",), "refusal"),
        ("audio", "set_audio", ("AA", "wav"), "format"),
    ],
)
def test_each_type_of_content(kind: Any, method: str, args: Any, field: str) -> None:
    content = ResponseBuilder().create_message_builder().create_content_builder(kind)
    getattr(content, method)(*args)
    event = content.complete()
    assert event.payload is not None
    assert event.payload[field] == args[-1]


def test_what_is_out_of_order_is_refused() -> None:
    response = ResponseBuilder()
    message = response.create_message_builder()
    content = message.create_content_builder("image")
    with pytest.raises(ItemError, match="for content of type text"):
        content.add_text_delta("x")
    with pytest.raises(RuntimeError, match="part of the message is not complete"):
        message.complete()
    content.complete()
    with pytest.raises(RuntimeError, match="the part is complete"):
        content.set_image_url("u")
    with pytest.raises(RuntimeError, match="a message is not complete"):
        response.completed()
    assert response.failed("exception", "no").output == ()
    with pytest.raises(RuntimeError, match="the response has ended"):
        response.create_message_builder()
    with pytest.raises(ItemError, match="must be one of user"):
        ResponseBuilder().create_message_builder("robot")  # type: ignore[arg-type]
    response.reset()
    assert response.created().sequence_number == 0
    assert response.canceled("stopped").status == "canceled"
