"""The events of a run as the events of a streamed response.

Order and fields are those of OpenAI's API reference, "Streaming events": created, in_progress; for each item
output_item.added, its parts or arguments, output_item.done; one of completed, failed and incomplete. Numbers begin
at 0 and have no gaps. They depend on the events of the run alone, so a stream that is read again has the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ...protocol.events import ContentEvent, Event, MessageEvent, ResponseEvent
from ...runs import Gap
from ...runs.run import Run
from ..openai.fields import json_text
from ..openai.parts import part_text
from ..openai.turns import go_on_unwatched, question_in
from .envelope import Envelope, ending_of, response_event_of
from .items import SERVER_LABEL, Item, Output, item_id, kind_of, part_of

__all__ = ["ResponseStream"]

PREAMBLE = b": stream\n\n"
"""A comment only: clients of OpenAI take a frame with `retry` for an event without data."""

CALL_EVENTS = {"function_call": "response.function_call_arguments", "own_call": "response.mcp_call_arguments"}


class _Part:
    """The part of a message that is being written."""

    __slots__ = ("head", "index", "pieces", "shown")

    def __init__(self, index: int, head: bytes, shown: Item) -> None:
        self.index = index
        self.head = head
        """The frame of a delta, up to its number."""
        self.shown = shown
        """The part as `content_part.added` has shown it."""
        self.pieces: list[str] = []

    def so_far(self) -> Item:
        return {**self.shown, "refusal" if "refusal" in self.shown else "text": "".join(self.pieces)}


class _Open:
    """An item that is being written."""

    __slots__ = ("call", "item", "kind", "part", "parts", "place", "sent")

    def __init__(self, kind: str, place: int = -1) -> None:
        self.kind = kind
        self.place = place
        """Its place in the output. Clients want places in turn, so it gets one when the client sees it begin."""
        self.item: Item | None = None
        """The item as `output_item.added` has shown it; None: it was not sent."""
        self.part: _Part | None = None
        self.parts: list[Item] = []
        """Its completed parts."""
        self.call: dict[str, Any] = {}
        """Of a tool call: what its deltas have said so far."""
        self.sent = ""
        """Of a tool call: the arguments that were sent."""


class ResponseStream:
    """Spells one turn of a run.

    Args:
        after: the number of the last event that the client has; earlier ones are not sent again.
        begun: None: the stream begins with the first event of the run. Else the time at which the run was created:
            the stream begins with the first event of a later turn.
    """

    def __init__(self, envelope: Envelope, run: Run | None, *, after: int = -1, begun: int | None = None) -> None:
        self.ended = False
        self._envelope = envelope
        self._run = run
        self._after = after
        self._number = 0
        self._created_at = 0
        self._created = False
        self._output = Output()
        self._announced: set[int] = set()
        """Places of calls that the client has seen begin."""
        self._open: dict[str, _Open] = {}
        # The text part to which the last delta belonged: nearly every event is a delta of the same part.
        self._msg_id = ""
        self._part: _Part | None = None
        self.preamble = PREAMBLE if begun is None else PREAMBLE + self._begin(begun)

    def trailer(self) -> bytes:
        return b""

    def spell(self, event: Event | Gap) -> bytes:
        if type(event) is ContentEvent:
            part = self._part
            if part is not None and event.msg_id == self._msg_id and event.index == part.index:
                # Nearly every event is a delta of the same part.
                if event.delta and event.payload is None:
                    return self._piece(part, event.text)
                self._part = None
            return b"" if self.ended else self._content(event)
        if self.ended:
            return b""
        if isinstance(event, MessageEvent):
            return self._message(event)
        if isinstance(event, ResponseEvent):
            return self._response(event)
        if isinstance(event, Gap):
            return self._lost(event)
        # State and other events that this protocol has no words for.
        return b""

    # The response.

    def _begin(self, created_at: int) -> bytes:
        self._created, self._created_at = True, created_at
        response = self._envelope.body("in_progress", created_at)
        return self._frame("response.created", response=response) + self._frame(
            "response.in_progress", response=response
        )

    def _response(self, event: ResponseEvent) -> bytes:
        if not event.terminal:
            self._created_at = event.created_at
            return b"" if self._created else self._begin(event.created_at)
        self.ended = True
        begin = b"" if self._created else self._begin(event.created_at)
        status, fields = ending_of(event)
        return begin + self._close() + self._end(status, fields)

    def _end(self, status: Any, fields: Mapping[str, Any]) -> bytes:
        response = self._envelope.body(status, self._created_at, self._output.listed(), **fields)
        return self._frame(response_event_of(status), response=response)

    def _lost(self, gap: Gap) -> bytes:
        self.ended = True
        message = (
            f"Events {gap.start} to {gap.stop} of this run are not kept any more. Retrieve the response instead."
        )
        return self._frame("error", code="events_lost", message=message, param=None)

    # Messages.

    def _message(self, event: MessageEvent) -> bytes:
        asks = question_in(event) is not None
        if event.content is None:
            return self._begin_item(event)
        data = self._finish_item(event)
        if asks:
            self.ended = True
            go_on_unwatched(self._run)
            data += self._close() + self._end("completed", {})
        return data

    def _begin_item(self, event: MessageEvent) -> bytes:
        kind = kind_of(event.type)
        if kind in ("none", "own_output"):
            return b""
        opened = self._open[event.id] = _Open(kind)
        if kind in ("message", "reasoning"):
            opened.place = self._output.place(event.id)
        if kind == "message":
            return self._add(opened, {"type": kind, "id": event.id, "role": "assistant", "content": []})
        if kind == "reasoning":
            return self._add(opened, {"type": kind, "id": item_id(kind, event.id), "summary": [], "content": []})
        # Nothing is known of the others yet: a call needs its name.
        return b""

    def _add(self, opened: _Open, item: Item) -> bytes:
        opened.item = item
        shown = (
            item
            if item["type"] in ("mcp_approval_request", "mcp_approval_response", "mcp_list_tools")
            else {
                **item,
                "status": "in_progress",
            }
        )
        return self._frame("response.output_item.added", output_index=opened.place, item=shown)

    def _finish_item(self, event: MessageEvent) -> bytes:
        self._part, self._msg_id = None, ""
        opened = self._open.pop(event.id, None)
        kind = kind_of(event.type)
        completed = self._output.add(event)
        if kind == "own_call":
            return self._finish_own_call(event, opened)
        if completed is None:
            return b""
        place, item = completed
        if kind == "own_output":
            return self._finish_own_output(place, item)
        opened = opened or _Open(kind)
        opened.place = place
        data = b""
        if kind == "function_call":
            data += self._finish_call(opened, item)
        elif opened.item is None:
            data += self._whole(opened, item)
        elif event.message and kind == "message":
            data += self._whole_part(opened, len(item["content"]) - 1, item["content"][-1], item["id"])
        return data + self._frame("response.output_item.done", output_index=place, item=item)

    def _whole(self, opened: _Open, item: Item) -> bytes:
        """Return the frames of an item of which nothing was sent, without its last one."""
        if opened.kind not in ("message", "reasoning"):
            return self._add(opened, item)
        data = self._add(opened, {**item, "content": []})
        return data + b"".join(
            self._whole_part(opened, index, part, item["id"]) for index, part in enumerate(item["content"])
        )

    # Parts of messages.

    def _content(self, event: ContentEvent) -> bytes:
        opened = self._open.get(event.msg_id)
        if opened is None:
            # Its message began in an earlier turn. It is sent as a whole when it is complete.
            return b""
        if opened.kind in CALL_EVENTS:
            return self._call_delta(opened, event) if event.delta else b""
        if opened.kind not in ("message", "reasoning"):
            return b""
        id = item_id(opened.kind, event.msg_id)
        if event.delta:
            return self._delta(opened, event, id)
        part, opened.part = opened.part, None
        if event.msg_id == self._msg_id:
            self._part, self._msg_id = None, ""
        shown = part_of(event, reasoning=opened.kind == "reasoning")
        if part is None or part.index != event.index:
            return self._whole_part(opened, event.index, shown, id)
        return self._finish_part(opened, event.index, shown, id)

    def _delta(self, opened: _Open, event: ContentEvent, id: str) -> bytes:
        if event.type not in ("text", "refusal"):
            return b""
        text = event.text if event.payload is None else part_text(event)
        part, data = opened.part, b""
        if part is None or part.index != event.index:
            shown = part_of(event, reasoning=opened.kind == "reasoning")
            shown["refusal" if shown["type"] == "refusal" else "text"] = ""
            part, data = self._begin_part(opened, event.index, shown, id)
        if event.payload is None:
            self._part, self._msg_id = part, event.msg_id
        return data + self._piece(part, text)

    def _begin_part(self, opened: _Open, index: int, part: Item, id: str) -> tuple[_Part, bytes]:
        place = {"item_id": id, "output_index": opened.place, "content_index": index}
        name = _DELTAS[part["type"]]
        fields: dict[str, Any] = {"type": f"{name}.delta", **place}
        if part["type"] == "output_text":
            fields["logprobs"] = []
        head = orjson.dumps(fields).removesuffix(b"}")
        begun = opened.part = _Part(
            index, b'event: %b.delta\ndata: %b,"sequence_number":' % (name.encode(), head), part
        )
        return begun, self._frame("response.content_part.added", **place, part=part)

    def _piece(self, part: _Part, text: str) -> bytes:
        part.pieces.append(text)
        number = self._number
        self._number = number + 1
        if number <= self._after:
            return b""
        return b'%b%d,"delta":%b}\n\n' % (part.head, number, orjson.dumps(text))

    def _finish_part(self, opened: _Open, index: int, part: Item, id: str) -> bytes:
        place = {"item_id": id, "output_index": opened.place, "content_index": index}
        opened.parts.append(part)
        kind = part["type"]
        whole = {"refusal": part["refusal"]} if kind == "refusal" else {"text": part["text"]}
        if kind == "output_text":
            whole["logprobs"] = []
        return self._frame(f"{_DELTAS[kind]}.done", **place, **whole) + self._frame(
            "response.content_part.done", **place, part=part
        )

    def _whole_part(self, opened: _Open, index: int, part: Item, id: str) -> bytes:
        name = "refusal" if part["type"] == "refusal" else "text"
        begun, data = self._begin_part(opened, index, {**part, name: ""}, id)
        opened.part = None
        piece = self._piece(begun, part[name]) if part[name] else b""
        return data + piece + self._finish_part(opened, index, part, id)

    # Tool calls.

    def _call_delta(self, opened: _Open, event: ContentEvent) -> bytes:
        if not isinstance(event.data, Mapping):
            return b""
        for name in ("call_id", "name"):
            value = event.data.get(name)
            if value and name not in opened.call:
                opened.call[name] = json_text(value)
        more = event.data.get("arguments")
        opened.call["arguments"] = opened.call.get("arguments", "") + (more if isinstance(more, str) else "")
        if "call_id" not in opened.call or "name" not in opened.call:
            return b""
        data = b""
        id = item_id(opened.kind, event.msg_id)
        if opened.item is None:
            opened.place = self._output.place(event.msg_id)
            label = event.data.get("server_label")
            data = self._begin_call(opened, id, opened.call, label if isinstance(label, str) else SERVER_LABEL)
        if piece := opened.call["arguments"][len(opened.sent) :]:
            opened.sent += piece
            data += self._frame(
                f"{CALL_EVENTS[opened.kind]}.delta", item_id=id, output_index=opened.place, delta=piece
            )
        return data

    def _begin_call(self, opened: _Open, id: str, call: Mapping[str, Any], label: str) -> bytes:
        if opened.kind == "function_call":
            item = {
                "type": "function_call",
                "id": id,
                "call_id": call["call_id"],
                "name": call["name"],
                "arguments": "",
            }
            return self._add(opened, item)
        self._announced.add(opened.place)
        item = {"type": "mcp_call", "id": id, "name": call["name"], "arguments": "", "server_label": label}
        return self._add(opened, {**item, "output": None, "error": None}) + self._frame(
            "response.mcp_call.in_progress", item_id=id, output_index=opened.place
        )

    def _finish_call(self, opened: _Open, item: Item) -> bytes:
        data = b""
        if opened.item is None:
            data = self._begin_call(opened, item["id"], item, str(item.get("server_label", "")))
        arguments = json_text(item["arguments"])
        place = {"item_id": item["id"], "output_index": opened.place}
        kind = CALL_EVENTS[opened.kind]
        if (rest := arguments.removeprefix(opened.sent)) and arguments.startswith(opened.sent):
            data += self._frame(f"{kind}.delta", **place, delta=rest)
        name = {"name": item["name"]} if opened.kind == "function_call" else {}
        return data + self._frame(f"{kind}.done", **place, **name, arguments=arguments)

    def _finish_own_call(self, event: MessageEvent, opened: _Open | None) -> bytes:
        place, item = next(
            entry for entry in self._output.open_calls.values() if entry[1]["id"] == item_id("own_call", event.id)
        )
        opened = opened or _Open("own_call")
        opened.place = place
        return self._finish_call(opened, item)

    def _finish_own_output(self, place: int, item: Item) -> bytes:
        data = b""
        if place not in self._announced:
            data = self._finish_call(_Open("own_call", place), item)
        return (
            data
            + self._frame("response.mcp_call.completed", item_id=item["id"], output_index=place)
            + self._frame("response.output_item.done", output_index=place, item=item)
        )

    # The end, and frames.

    def _close(self) -> bytes:
        """Return the frames that complete what is open.

        At the end of a run that is calls without an output. At a question it may be messages that grow beside it:
        the next turn has them whole.
        """
        data = b""
        for opened in self._open.values():
            if opened.item is not None:
                item = {**opened.item, "status": "incomplete"}
                if opened.kind in CALL_EVENTS:
                    item["arguments"] = opened.sent
                else:
                    if opened.part is not None:
                        data += self._finish_part(opened, opened.part.index, opened.part.so_far(), item["id"])
                    item["content"] = opened.parts
                self._output.items[opened.place] = item
                data += self._frame("response.output_item.done", output_index=opened.place, item=item)
        self._open.clear()
        for place, item in self._output.close():
            data += self._frame("response.output_item.done", output_index=place, item=item)
        return data

    def _frame(self, name: str, /, **fields: Any) -> bytes:
        number = self._number
        self._number = number + 1
        if number <= self._after:
            return b""
        event = {"type": name, "sequence_number": number, **fields}
        return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(event))


_DELTAS = {
    "output_text": "response.output_text",
    "refusal": "response.refusal",
    "reasoning_text": "response.reasoning_text",
}
