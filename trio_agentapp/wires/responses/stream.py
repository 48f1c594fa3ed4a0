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
from ..openai.parts import part_text
from ..openai.turns import go_on_unwatched, question_in
from .envelope import Envelope, ending_of, response_event_of
from .items import SERVER_LABEL, Item, Output, item_id, kind_of, part_of
from .open_item import OpenItem, Part

__all__ = ["ResponseStream"]

PREAMBLE = b": stream\n\n"
"""A comment only: clients of OpenAI take a frame with `retry` for an event without data."""

WITHOUT_STATUS = ("mcp_approval_request", "mcp_approval_response", "mcp_list_tools")
"""Types of items that have no `status`."""

CALL_EVENTS = {"function_call": "response.function_call_arguments", "own_call": "response.mcp_call_arguments"}


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
        self._open: dict[str, OpenItem] = {}
        # The text part to which the last delta belonged: nearly every event is a delta of the same part.
        self._msg_id = ""
        self._part: Part | None = None
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
        created = self._frame("response.created", response=response)
        return created + self._frame("response.in_progress", response=response)

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
        if event.content is None:
            return self._begin_item(event)
        data = self._finish_item(event)
        if question_in(event) is not None:
            self.ended = True
            go_on_unwatched(self._run)
            data += self._close() + self._end("completed", {})
        return data

    def _begin_item(self, event: MessageEvent) -> bytes:
        kind = kind_of(event.type)
        if kind in ("none", "own_output"):
            return b""
        opened = self._open[event.id] = OpenItem(kind, item_id(kind, event.id))
        if kind not in ("message", "reasoning"):
            # Nothing is known of the others yet: a call needs its name.
            return b""
        opened.place = self._output.place(event.id)
        own: Item = {"role": "assistant"} if kind == "message" else {"summary": []}
        return self._add(opened, {"type": kind, "id": opened.id, **own, "content": []})

    def _add(self, opened: OpenItem, item: Item) -> bytes:
        opened.item = item
        shown = item if item["type"] in WITHOUT_STATUS else {**item, "status": "in_progress"}
        return self._frame("response.output_item.added", output_index=opened.place, item=shown)

    def _finish_item(self, event: MessageEvent) -> bytes:
        self._part, self._msg_id = None, ""
        kind = kind_of(event.type)
        opened = self._open.pop(event.id, None) or OpenItem(kind, item_id(kind, event.id))
        completed = self._output.add(event)
        if kind == "own_call":
            return self._finish_own_call(opened)
        if completed is None:
            return b""
        opened.place, item = completed
        if kind == "own_output":
            return self._finish_own_output(opened.place, item)
        data = b""
        if kind == "function_call":
            data += self._finish_call(opened, item)
        elif opened.item is None:
            data += self._whole(opened, item)
        elif event.message and kind == "message":
            data += self._whole_part(opened, len(item["content"]) - 1, item["content"][-1])
        return data + self._frame("response.output_item.done", output_index=opened.place, item=item)

    def _whole(self, opened: OpenItem, item: Item) -> bytes:
        """Return the frames of an item of which nothing was sent, without its last one."""
        if opened.kind not in ("message", "reasoning"):
            return self._add(opened, item)
        data = self._add(opened, {**item, "content": []})
        return data + b"".join(self._whole_part(opened, *each) for each in enumerate(item["content"]))

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
        if event.delta:
            return self._delta(opened, event)
        part, opened.part = opened.part, None
        if event.msg_id == self._msg_id:
            self._part, self._msg_id = None, ""
        shown = part_of(event, reasoning=opened.kind == "reasoning")
        if part is None or part.index != event.index:
            return self._whole_part(opened, event.index, shown)
        return self._finish_part(opened, part, shown)

    def _delta(self, opened: OpenItem, event: ContentEvent) -> bytes:
        if event.type not in ("text", "refusal"):
            return b""
        part, data = opened.part, b""
        if part is None or part.index != event.index:
            shown = part_of(event, reasoning=opened.kind == "reasoning")
            shown[_text_field(shown)] = ""
            part, data = self._begin_part(opened, event.index, shown)
        if event.payload is None:
            self._part, self._msg_id = part, event.msg_id
        return data + self._piece(part, part_text(event))

    def _begin_part(self, opened: OpenItem, index: int, shown: Item) -> tuple[Part, bytes]:
        place = {"item_id": opened.id, "output_index": opened.place, "content_index": index}
        name = f"{_EVENTS[shown['type']]}.delta"
        fields: dict[str, Any] = {"type": name, **place}
        if shown["type"] == "output_text":
            fields["logprobs"] = []
        head = orjson.dumps(fields).removesuffix(b"}")
        part = opened.part = Part(
            index, place, b'event: %b\ndata: %b,"sequence_number":' % (name.encode(), head), shown
        )
        return part, self._frame("response.content_part.added", **place, part=shown)

    def _piece(self, part: Part, text: str) -> bytes:
        part.pieces.append(text)
        number = self._number
        self._number = number + 1
        if number <= self._after:
            return b""
        return b'%b%d,"delta":%b}\n\n' % (part.head, number, orjson.dumps(text))

    def _finish_part(self, opened: OpenItem, part: Part, shown: Item) -> bytes:
        opened.parts.append(shown)
        name = _text_field(shown)
        whole = {name: shown[name], **({"logprobs": []} if shown["type"] == "output_text" else {})}
        done = self._frame(f"{_EVENTS[shown['type']]}.done", **part.place, **whole)
        return done + self._frame("response.content_part.done", **part.place, part=shown)

    def _whole_part(self, opened: OpenItem, index: int, shown: Item) -> bytes:
        name = _text_field(shown)
        part, data = self._begin_part(opened, index, {**shown, name: ""})
        opened.part = None
        piece = self._piece(part, shown[name]) if shown[name] else b""
        return data + piece + self._finish_part(opened, part, shown)

    # Tool calls.

    def _call_delta(self, opened: OpenItem, event: ContentEvent) -> bytes:
        if not isinstance(event.data, Mapping) or not opened.call.grow(event.data):
            return b""
        data = b""
        if opened.item is None:
            opened.place = self._output.place(event.msg_id)
            label = event.data.get("server_label")
            data = self._begin_call(opened, label if isinstance(label, str) else SERVER_LABEL)
        return data + self._send_arguments(opened)

    def _begin_call(self, opened: OpenItem, label: str) -> bytes:
        call = opened.call
        if opened.kind == "function_call":
            item = {
                "type": "function_call",
                "id": opened.id,
                "call_id": call.id,
                "name": call.name,
                "arguments": "",
            }
            return self._add(opened, item)
        self._announced.add(opened.place)
        item = {"type": "mcp_call", "id": opened.id, "name": call.name, "arguments": "", "server_label": label}
        return self._add(opened, {**item, "output": None, "error": None}) + self._frame(
            "response.mcp_call.in_progress", item_id=opened.id, output_index=opened.place
        )

    def _send_arguments(self, opened: OpenItem) -> bytes:
        place = {"item_id": opened.id, "output_index": opened.place}
        piece = opened.call.take()
        return self._frame(f"{CALL_EVENTS[opened.kind]}.delta", **place, delta=piece) if piece else b""

    def _finish_call(self, opened: OpenItem, item: Item) -> bytes:
        data, call = b"", opened.call
        if opened.item is None:
            call.id, call.name = item.get("call_id", ""), item["name"]
            data = self._begin_call(opened, str(item.get("server_label", "")))
        call.complete(item["arguments"])
        data += self._send_arguments(opened)
        name = {"name": item["name"]} if opened.kind == "function_call" else {}
        done = {"item_id": opened.id, "output_index": opened.place, **name, "arguments": item["arguments"]}
        return data + self._frame(f"{CALL_EVENTS[opened.kind]}.done", **done)

    def _finish_own_call(self, opened: OpenItem) -> bytes:
        opened.place, item = next(
            entry for entry in self._output.open_calls.values() if entry[1]["id"] == opened.id
        )
        return self._finish_call(opened, item)

    def _finish_own_output(self, place: int, item: Item) -> bytes:
        data = b""
        if place not in self._announced:
            data = self._finish_call(OpenItem("own_call", item["id"], place), item)
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
                    item["arguments"] = opened.call.sent
                else:
                    if opened.part is not None:
                        data += self._finish_part(opened, opened.part, opened.part.so_far())
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


_EVENTS = {
    "output_text": "response.output_text",
    "refusal": "response.refusal",
    "reasoning_text": "response.reasoning_text",
}


def _text_field(part: Item) -> str:
    return "refusal" if part["type"] == "refusal" else "text"
