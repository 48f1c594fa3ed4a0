"""The task as a fold over events, its streams, its parts, and the memory of a node."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest

from trio_agentapp.protocol import (
    AudioContent,
    DataContent,
    FileContent,
    ImageContent,
    Message,
    TextContent,
    VideoContent,
)
from trio_agentapp.protocol.builder import ResponseBuilder
from trio_agentapp.protocol.content import Content, RefusalContent
from trio_agentapp.protocol.events import Event
from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.runs import Gap
from trio_agentapp.wires import a2a_reply
from trio_agentapp.wires.a2a import memory
from trio_agentapp.wires.a2a.memory import TaskMemory
from trio_agentapp.wires.a2a.parts import content_of, part_of_content
from trio_agentapp.wires.a2a.public_address import is_public
from trio_agentapp.wires.a2a.stream import TaskStream
from trio_agentapp.wires.a2a.task import Task
from trio_agentapp.wires.a2a.versions import LEGACY, MODERN


def events_of(*items: Any, end: bool = True) -> list[Event]:
    builder = ResponseBuilder("run-0001", "ctx", created_at=1_700_000_000)
    events: list[Event] = [*builder.start()]
    for item in items:
        events += builder.add(item)
    if end:
        events += builder.complete(completed_at=1_700_000_001)
    return events


def folded(events: Sequence[Event | Gap]) -> dict[str, Any]:
    task = Task("run-0001", "ctx")
    for event in events:
        task.apply(event)
    return task.as_object()


def items_of(events: Sequence[Event], version: Any = MODERN, at: int = 2) -> list[dict[str, Any]]:
    """The frames of a stream: the task after `at` events, then the rest, one event at a time."""
    stream = TaskStream(Task("run-0001", "ctx"), version, None)
    stream.begin(events[:at])
    data = stream.preamble
    for event in events[at:]:
        data += stream.spell(event)
    data += stream.settle() + stream.trailer()
    return [json.loads(frame[6:]) for frame in data.split(b"\n\n") if frame.startswith(b"data: ")]


def refolded(items: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What a client has of a stream: the parts of each artifact, with neighbouring texts joined."""
    artifacts: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        for artifact in item.get("task", {}).get("artifacts", ()):
            artifacts[artifact["artifactId"]] = list(artifact["parts"])
        if (update := item.get("artifactUpdate")) is not None:
            known = artifacts.setdefault(update["artifact"]["artifactId"], [])
            assert update["append"] is bool(known)
            known += update["artifact"]["parts"]
    return [_joined(parts) for parts in artifacts.values()]


def _joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    joined: list[dict[str, Any]] = []
    for part in parts:
        if joined and set(part) == {"text"} == set(joined[-1]):
            joined[-1] = {"text": joined[-1]["text"] + part["text"]}
        elif part != {"text": ""}:
            joined.append(part)
    return joined


ANSWERS: dict[str, list[Any]] = {
    "text": ["a", "b", "c"],
    "parts after text": ["a", DataContent({"x": 1}), "b", ImageContent("https://e.org/a.png"), "c"],
    "a whole message": [Message(content=[TextContent("a"), DataContent([1])])],
    "several messages": ["a", Message(content="b"), "c"],
    "data in pieces": [DataContent({"a": "x"}, delta=True), DataContent({"a": "y"}, delta=True)],
    "a copy that grows": [(Message(id="m-1", content="ab"), False), (Message(id="m-1", content="abcd"), True)],
    "messages in turns": [
        (Message(id="m-1", content="a"), False),
        (Message(id="m-2", content="x"), False),
        (Message(id="m-1", content="ab"), True),
        (Message(id="m-2", content="xy"), True),
    ],
    "reasoning": [Message.reasoning("hm"), "a"],
    "nothing": [],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_gives_the_task(name: str) -> None:
    """Wherever a stream begins, its items together are the task that `GetTask` returns."""
    events = events_of(*ANSWERS[name])
    whole = folded(events)
    for at in range(2, len(events)):
        stream = items_of(events, at=at)
        assert "task" in stream[0]
        assert refolded(stream) == [artifact["parts"] for artifact in whole["artifacts"]], (name, at)
        assert stream[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
        last = {}
        for item in stream:
            if "artifactUpdate" in item:
                last[item["artifactUpdate"]["artifact"]["artifactId"]] = item["artifactUpdate"]["lastChunk"]
        assert all(last.values())


def test_the_last_part_of_a_message_has_its_name() -> None:
    message = Message(content=[DataContent(1)], metadata={"name": "n", "extensions": ["https://e.org/x"], "k": 1})
    *_, artifact, _end = items_of(events_of(message))
    update = artifact["artifactUpdate"]
    assert (update["append"], update["lastChunk"]) == (False, True)
    assert update["artifact"] == {
        "artifactId": update["artifact"]["artifactId"],
        "name": "n",
        "extensions": ["https://e.org/x"],
        "metadata": {"k": 1},
        "parts": [{"data": 1, "mediaType": "application/json"}],
    }


def test_all_streams_of_a_task_write_the_same_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Specification 1.0, section 3.5.2: each stream gets the same events."""
    clock = count(1_700_000_000)
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    known = TaskMemory()
    tasks = [Task("run-0001", "ctx", seen=known.seen), Task("run-0001", "ctx", seen=known.seen)]
    events = events_of(Message.reasoning("hm"), "a")
    written = []
    for task in tasks:
        task.live = True
        written.append([update for event in events for update in task.apply(event)])
    assert written[0] == written[1]
    times = [update["status"]["timestamp"] for kind, update in written[0] if kind == "statusUpdate"]
    assert times == sorted(set(times))


def test_a_bare_message_is_alone() -> None:
    [item] = items_of(events_of(a2a_reply("hello", metadata={"k": 1})))
    assert item["message"]["parts"] == [{"text": "hello"}]
    assert item["message"]["metadata"] == {"k": 1}
    for more in (["then"], [a2a_reply("two")], [Message.reasoning("hm")]):
        items = items_of(events_of(a2a_reply("hello"), *more))
        assert "task" in items[0]
        assert refolded(items)[0] == [{"text": "hello"}]


def test_a_gap_ends_a_stream() -> None:
    stream = TaskStream(Task("run-0001", "ctx"), MODERN, None)
    stream.begin(events_of("a", end=False))
    assert stream.spell(Gap(5, 9)) == b""
    assert stream.ended


def test_a_gap_is_filled_by_the_last_event() -> None:
    events = events_of("a", Message(content="b"), "c")
    whole = folded(events)
    assert folded([Gap(0, 5), *events[6:]])["artifacts"] == whole["artifacts"]


def test_a_recap_has_all_messages() -> None:
    builder = ResponseBuilder("run-0001", "ctx", created_at=0)
    events = [*builder.start()]
    items = ["a", Message(content="b"), (Message(id="m", content="x"), False), "c", DataContent(5), "d"]
    for item in items:
        events += builder.add(item)
    assert folded(builder.recap())["artifacts"] == folded(events)["artifacts"]


def test_0_3_writes_data_as_objects() -> None:
    items = items_of(events_of(DataContent([1])), LEGACY)
    part = items[1]["artifact"]["parts"][0]
    assert part == {"kind": "data", "data": {"value": [1]}, "metadata": {"data_part_compat": True}}
    assert items[-1]["final"] is True


PARTS: list[tuple[dict[str, Any], Content]] = [
    ({"text": "a"}, TextContent("a")),
    ({"data": [1], "mediaType": "application/json"}, DataContent([1])),
    ({"url": "https://e.org/a.png", "mediaType": "image/png"}, ImageContent("https://e.org/a.png")),
    ({"raw": "aGk=", "mediaType": "image/png"}, ImageContent("data:image/png;base64,aGk=")),
    ({"raw": "aGk=", "mediaType": "audio/wav"}, AudioContent("aGk=", format="wav")),
    ({"url": "https://e.org/a.mp4", "mediaType": "video/mp4"}, VideoContent("https://e.org/a.mp4")),
    (
        {"raw": "aGk=", "mediaType": "application/pdf", "filename": "a.pdf"},
        FileContent(filename="a.pdf", file_data="data:application/pdf;base64,aGk="),
    ),
    (
        {"url": "https://e.org/a.pdf", "mediaType": "application/pdf", "filename": "a.pdf"},
        FileContent(file_url="https://e.org/a.pdf", filename="a.pdf"),
    ),
]


@pytest.mark.parametrize(("part", "content"), PARTS)
def test_parts_and_content(part: dict[str, Any], content: Content) -> None:
    assert content_of(part) == content
    assert part_of_content(content) == part


def test_parts_without_a_media_type() -> None:
    assert content_of({"raw": "aGk="}) == FileContent(file_data="aGk=")
    assert content_of({"raw": "-_8="}) == FileContent(file_data="+/8=")
    assert content_of({"url": "https://e.org/x"}) == FileContent(file_url="https://e.org/x")
    assert part_of_content(RefusalContent("no")) == {"text": "no", "metadata": {"type": "refusal"}}
    assert part_of_content(FileContent(file_id="f"))["data"] == {"fileId": "f"}


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_TASKS", 3)
    monkeypatch.setattr(memory, "MAX_REFUSED", 3)
    kept = TaskMemory()
    for number in range(5):
        kept.remember(f"t{number}", {"n": number})
        kept.refuse("u", {"id": f"r{number}"})
        kept.note_anonymous(SessionKey("u", f"s{number}"))
    assert [len(kept.asked(f"t{number}")) for number in range(5)] == [0, 0, 1, 1, 1]
    assert [kept.refused("u", f"r{number}") is not None for number in range(5)] == [False, False, True, True, True]
    assert kept.refused("other", "r4") is None
    assert [key.session_id for key in kept.anonymous()] == ["s4", "s3", "s2"]
    monkeypatch.setattr(memory, "MAX_BYTES", 100)
    kept.remember("large", {"x": "y" * 500})
    assert kept.asked("t4") == ()
    assert len(kept.asked("large")) == 1
