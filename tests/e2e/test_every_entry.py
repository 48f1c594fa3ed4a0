"""What happens to a run has one effect, whichever protocol starts it. Each protocol says it in its own words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import attrs
import pytest

from ..wires.frames import chunks_of, events_of
from . import front_ends
from .a2a_client import headers_of, saying
from .conftest import Start
from .harness import WAYS, Answer, Server, SSEParser, fresh, output_text
from .sockets import connect
from .test_ai_sdk import answered as answered_by_ui

Body = dict[str, Any]

AGENT = "a2a_agent"
OPTIONS = {"enable_stream_task": True}
ALLOWED_LOG = r"^.*(the handler failed|its stream failed).*$"

STOPPED = ["cancelled wait", "end wait"]


@attrs.frozen(kw_only=True)
class Entry:
    """How one protocol starts a run, and what it says about it."""

    path: str
    body: Callable[[str, str, Body], Body]
    """The body for a text, a session, and further fields of a run."""
    read: Callable[[Answer], list[Any]]
    """The frames of an answer."""
    last: Callable[[list[Any]], Any]
    """What the frames say about the end."""
    said: Callable[[list[Any]], str]
    ends: Mapping[str, Any]
    """What `last` returns, by the reason for which a run ends."""
    busy: str
    """What is in the refusal of a run whose session is busy."""
    busy_status: int = 409
    headers: Mapping[str, str] = attrs.field(factory=dict)
    reply: Callable[[Body, list[Any]], tuple[str, Body]] | None = None
    """The path and body that answer the question with which the frames end; None: the stream goes on."""
    leaving_stops: bool = True
    """Whether a client that hangs up stops its run."""
    states: Callable[[list[Any]], list[Any]] = lambda _: []
    """The states that the frames show."""

    async def start(self, server: Server, text: str, session: str, **fields: Any) -> Opened:
        stack = AsyncExitStack()
        client = await stack.enter_async_context(server.connect())
        await client.send("POST", self.path, self.body(text, session, fields), headers=dict(self.headers))
        return Opened(self, server, stack, client, await client.head())


@attrs.frozen
class Opened:
    """A run of an entry, and the rest of its answer."""

    entry: Entry
    server: Server
    stack: AsyncExitStack
    client: Any
    head: Answer

    @property
    def run_id(self) -> str:
        run_id = self.head.header("x-run-id")
        assert run_id, self.head
        return run_id

    async def frames(self) -> list[Any]:
        answer = await self.whole()
        return self.entry.read(answer)

    async def whole(self) -> Answer:
        with self.server.deadline(15, f"end of the answer of {self.entry.path}"):
            while piece := await self.client.data():
                self.head.body += piece
        await self.leave()
        return self.head

    async def leave(self) -> None:
        """Hang up."""
        await self.stack.aclose()


class SocketEntry(Entry):
    """`/ws`."""

    async def start(self, server: Server, text: str, session: str, **fields: Any) -> Opened:
        stack = AsyncExitStack()
        socket = await stack.enter_async_context(connect(server))
        await socket.send("start", id="1", request=self.body(text, session, fields))
        first = await socket.receive()
        if first["type"] == "error":
            answer = Answer(int(first["error"]["status"]), [], json.dumps(first).encode())
            return OpenedSocket(self, server, stack, socket, answer)
        return OpenedSocket(self, server, stack, socket, Answer(200, [("x-run-id", first["run_id"])], b""))


class OpenedSocket(Opened):
    async def frames(self) -> list[Any]:
        await self.client.wait_for("1", "done")
        await self.leave()
        events: list[Any] = self.client.events("1")
        return events

    async def whole(self) -> Answer:
        await self.leave()
        return self.head


class TaskEntry(Entry):
    """`/process/task`: its answer names the run, and another request reads the end."""

    async def start(self, server: Server, text: str, session: str, **fields: Any) -> Opened:
        answer = await server.call("POST", self.path, self.body(text, session, fields))
        headers = [("x-run-id", answer.json()["task_id"])] if answer.status < 400 else []
        status = 200 if answer.status < 400 else answer.status
        return OpenedTask(self, server, AsyncExitStack(), None, Answer(status, headers, answer.body))


class OpenedTask(Opened):
    async def frames(self) -> list[Any]:
        with self.server.deadline(15, "end of the task"):
            while (task := await self.server.get(f"/process/task/{self.run_id}"))["ended_at"] is None:
                pass
        return [task]

    async def whole(self) -> Answer:
        return self.head


def sse(body: bytes) -> list[Any]:
    parser = SSEParser()
    events = parser.feed(body)
    parser.end()
    return events


def plain(answer: Answer) -> list[Any]:
    return sse(answer.body)


def data_lines(answer: Answer) -> list[Any]:
    assert answer.status == 200, answer
    return [json.loads(frame[6:]) for frame in answer.body.split(b"\n\n") if frame.startswith(b"data: ")]


def user(text: str) -> list[Body]:
    return [{"role": "user", "content": text}]


def process_body(text: str, session: str, fields: Body) -> Body:
    return {"input": text, "session_id": session, "stream": True, **fields}


def process_last(events: list[Any]) -> Any:
    end = events[-1]
    return end["status"], end["error"] and end["error"]["code"]


def process_said(events: list[Any]) -> str:
    return "".join(event["text"] for event in events if event["object"] == "content" and event["delta"])


def process_states(events: list[Any]) -> list[Any]:
    return [event["state"] for event in events if event["object"] == "state"]


def task_body(text: str, session: str, fields: Body) -> Body:
    # A run in the background waits for its session, unless it is told not to.
    return {"input": text, "session_id": session, "multitask_strategy": "reject", **fields}


def task_last(found: list[Any]) -> Any:
    [task] = found
    return task["status"], task["result"] and process_last([task["result"]])


def response_body(text: str, session: str, fields: Body) -> Body:
    return {"input": text, "conversation": session, "stream": True, **fields}


def response_last(events: list[Any]) -> Any:
    end = events[-1]
    response = end["response"]
    return end["type"], response["status"], response["error"] and response["error"]["code"]


def response_reply(body: Body, events: list[Any]) -> tuple[str, Body]:
    response = events[-1]["response"]
    question = response["output"][-1]
    answer = {"type": "mcp_approval_response", "approval_request_id": question["id"], "approve": True}
    return "/v1/responses", {"input": [answer], "previous_response_id": response["id"], "stream": True}


def chat_body(text: str, session: str, fields: Body) -> Body:
    return {"messages": user(text), "session_id": session, "stream": True, **fields}


def chat_last(chunks: list[Any]) -> Any:
    end = chunks[-1]
    return end["error"]["code"] if "error" in end else end["choices"][0]["finish_reason"]


def chat_said(chunks: list[Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))


def chat_reply(body: Body, chunks: list[Any]) -> tuple[str, Body]:
    calls = [
        call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", ())
    ]
    shown = {"role": "assistant", "tool_calls": [calls[0]]}
    result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": "yes"}
    return "/v1/chat/completions", {**body, "messages": [*body["messages"], shown, result]}


def ag_ui_body(text: str, session: str, fields: Body) -> Body:
    return {**front_ends.ag_ui(text, thread=session), "forwardedProps": fields}


def ag_ui_last(frames: list[Any]) -> Any:
    end = frames[-1]
    return end["type"], end.get("code") or end.get("outcome", {}).get("type")


def ag_ui_reply(body: Body, frames: list[Any]) -> tuple[str, Body]:
    [interrupt] = frames[-1]["outcome"]["interrupts"]
    resume = [{"interruptId": interrupt["id"], "status": "resolved", "payload": True}]
    return "/ag-ui", {**front_ends.ag_ui("x", thread=body["threadId"]), "resume": resume}


def ai_sdk_body(text: str, session: str, fields: Body) -> Body:
    return front_ends.chat_body(text, chat=session, **fields)


def ai_sdk_last(frames: list[Any]) -> Any:
    assert frames[-1] == "[DONE]"
    end = frames[-2]
    return end["type"], end.get("finishReason") or end.get("errorText") or end.get("reason")


def ai_sdk_reply(body: Body, frames: list[Any]) -> tuple[str, Body]:
    asked = next(frame for frame in frames if isinstance(frame, dict) and frame["type"] == "tool-approval-request")
    part = {"state": "approval-responded", "approval": {"id": asked["approvalId"], "approved": True}}
    return "/ai-sdk/chat", answered_by_ui(body, frames[:-1], **part)


def a2a_params(text: str, session: str, fields: Body) -> Body:
    return {"message": saying(text, contextId=session), **({"metadata": fields} if fields else {})}


def a2a_body(text: str, session: str, fields: Body) -> Body:
    params = a2a_params(text, session, fields)
    return {"jsonrpc": "2.0", "id": 7, "method": "SendStreamingMessage", "params": params}


def a2a_last(items: list[Any]) -> Any:
    items = [item.get("result", item) for item in items]
    end = items[-1].get("statusUpdate") or items[-1]["task"]
    state = end["status"]["state"]
    message = end["status"].get("message") or {}
    return state, message.get("metadata", {}).get("code")


def a2a_said(items: list[Any]) -> str:
    updates = [item.get("result", item).get("artifactUpdate") for item in items]
    return "".join(part.get("text", "") for update in updates if update for part in update["artifact"]["parts"])


def a2a_reply(items: list[Any]) -> Body:
    items = [item.get("result", item) for item in items]
    return {"message": saying("yes", taskId=items[-1]["statusUpdate"]["taskId"])}


def rpc_reply(body: Body, items: list[Any]) -> tuple[str, Body]:
    return "/a2a", {"jsonrpc": "2.0", "id": 8, "method": "SendStreamingMessage", "params": a2a_reply(items)}


def rest_reply(body: Body, items: list[Any]) -> tuple[str, Body]:
    return "/message:stream", a2a_reply(items)


CODES = {"returned": None, "exception": "exception", "rejected": "rejected", "stopped": "stopped"}
CODES |= {"deadline_exceeded": "deadline_exceeded", "shutdown": "stopped"}
OWN_STATUS = {"returned": "completed", "rejected": "rejected", "stopped": "canceled", "shutdown": "canceled"}
OWN_ENDS = {reason: (OWN_STATUS.get(reason, "failed"), code) for reason, code in CODES.items()}
A2A_STATE = {name: f"TASK_STATE_{OWN_STATUS.get(name, 'failed').upper()}" for name in CODES}

PROCESS: dict[str, Any] = {"last": process_last, "said": process_said, "ends": OWN_ENDS, "busy": "session_busy"}
A2A: dict[str, Any] = {
    "read": data_lines,
    "last": a2a_last,
    "said": a2a_said,
    "ends": {reason: (A2A_STATE[reason], code) for reason, code in CODES.items()},
    "headers": headers_of("1.0"),
    "leaving_stops": False,
    # A refused message makes a task that was rejected.
    "busy": "session_busy",
    "busy_status": 200,
}

ENTRIES = {
    "process": Entry(path="/process", body=process_body, read=plain, states=process_states, **PROCESS),
    "socket": SocketEntry(path="/ws", body=process_body, read=plain, states=process_states, **PROCESS),
    "task": TaskEntry(
        path="/process/task",
        body=task_body,
        read=plain,
        last=task_last,
        said=lambda found: output_text(found[0]["result"]),
        ends={
            reason: ({"completed": "finished", "canceled": "cancelled"}.get(end[0], "failed"), end)
            for reason, end in OWN_ENDS.items()
        },
        busy="session_busy",
        leaving_stops=False,
    ),
    "responses": Entry(
        path="/v1/responses",
        body=response_body,
        read=lambda answer: events_of(answer.body),
        last=response_last,
        said=lambda events: "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta"),
        ends={
            "returned": ("response.completed", "completed", None),
            "exception": ("response.failed", "failed", "server_error"),
            "rejected": ("response.failed", "failed", "invalid_prompt"),
            "deadline_exceeded": ("response.failed", "failed", "server_error"),
            "stopped": ("response.incomplete", "cancelled", None),
            "shutdown": ("response.incomplete", "cancelled", None),
        },
        busy='"code":"session_busy"',
        reply=response_reply,
    ),
    "completions": Entry(
        path="/v1/chat/completions",
        body=chat_body,
        read=lambda answer: chunks_of(answer.body),
        last=chat_last,
        said=chat_said,
        ends={**CODES, "returned": "stop"},
        busy='"code":"session_busy"',
        reply=chat_reply,
    ),
    "ag-ui": Entry(
        path="/ag-ui",
        body=ag_ui_body,
        read=front_ends.frames_of,
        last=ag_ui_last,
        said=front_ends.text_of,
        ends={
            **{reason: ("RUN_ERROR", code) for reason, code in CODES.items()},
            "returned": ("RUN_FINISHED", "success"),
            "stopped": ("RUN_ERROR", "CANCELED"),
            "shutdown": ("RUN_ERROR", "CANCELED"),
        },
        busy='"code":"session_busy"',
        reply=ag_ui_reply,
        states=lambda frames: [f["snapshot"] for f in frames if f["type"] == "STATE_SNAPSHOT"],
    ),
    "ai-sdk": Entry(
        path="/ai-sdk/chat",
        body=ai_sdk_body,
        read=front_ends.frames_of,
        last=ai_sdk_last,
        said=front_ends.text_of,
        ends={
            **dict.fromkeys(CODES, ("finish", "error")),
            "returned": ("finish", "stop"),
            "stopped": ("abort", "stopped"),
            "shutdown": ("abort", "shutdown"),
        },
        # `useChat` shows the body as a text.
        busy="This session has a live run",
        reply=ai_sdk_reply,
        states=lambda frames: [f["data"] for f in frames if isinstance(f, dict) and f["type"] == "data-state"],
    ),
    "a2a": Entry(path="/a2a", body=a2a_body, reply=rpc_reply, **A2A),
    "a2a http": Entry(path="/message:stream", body=a2a_params, reply=rest_reply, **A2A),
}

each_entry = pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)


async def begun(server: Server, before: int, text: str = "wait") -> None:
    """Until the handler has begun, after so many marks."""
    await server.wait_until(lambda: f"begin {text}" in server.marks[before:], "begin of the handler")


async def record_of(server: Server, run_id: str) -> tuple[str, str, Any]:
    """State, reason and cleanup of a run that ends."""
    with server.deadline(15, "end of the run"):
        while (run := await server.get(f"/runs/{run_id}"))["phase"] != "ended":
            pass
    return run["state"], run["reason"], run["cleanup"]


@pytest.mark.parametrize(
    ("text", "state", "reason", "said"),
    [
        ("say hi", "FINISHED", "returned", "hi "),
        ("fail", "ERROR", "exception", "almost "),
        ("reject", "ERROR", "rejected", ""),
    ],
)
@each_entry
async def test_an_end_of_its_own(
    server: Server, entry: Entry, text: str, state: str, reason: str, said: str
) -> None:
    before = len(server.marks)
    run = await entry.start(server, text, fresh())
    frames = await run.frames()
    do = text.split()[0]
    assert (await record_of(server, run.run_id))[:2] == (state, reason)
    assert server.marks[before:] == [f"begin {do}", f"end {do}"]
    assert entry.last(frames) == entry.ends[reason]
    assert entry.said(frames) == said
    assert "secret detail" not in json.dumps(frames)


@each_entry
async def test_a_stop_and_conflicts(server: Server, entry: Entry) -> None:
    before, session = len(server.marks), fresh()
    run = await entry.start(server, "wait", session)
    await begun(server, before)
    for other in ENTRIES.values():
        refused = await other.start(server, "say no", session)
        assert refused.head.status == other.busy_status
        assert other.busy in (await refused.whole()).body.decode()
    receipt = await server.stop(wait=True, session_id=session)
    assert (receipt["run_id"], receipt["stopped"], receipt["cleanup"]) == (run.run_id, True, "done")
    assert server.marks[before:] == ["begin wait", *STOPPED]
    frames = await run.frames()
    assert (entry.last(frames), entry.said(frames)) == (entry.ends["stopped"], "waiting ")
    assert await record_of(server, run.run_id) == ("STOPPED", "stopped", "done")
    again = await entry.start(server, "say yes", session)
    assert entry.said(await again.frames()) == "yes "


@each_entry
async def test_a_time_out(server: Server, entry: Entry) -> None:
    before = len(server.marks)
    run = await entry.start(server, "wait", fresh(), timeout_s=0.2)
    assert entry.last(await run.frames()) == entry.ends["deadline_exceeded"]
    assert await record_of(server, run.run_id) == ("ERROR", "deadline_exceeded", "done")
    assert server.marks[before:] == ["begin wait", *STOPPED]


@each_entry
async def test_a_client_that_hangs_up(server: Server, entry: Entry) -> None:
    before, session = len(server.marks), fresh()
    run = await entry.start(server, "wait", session)
    await begun(server, before)
    await run.leave()
    if not entry.leaving_stops:
        assert (await server.get(f"/runs/{run.run_id}"))["phase"] == "running"
        await server.stop(wait=True, session_id=session)
    reason = "disconnected" if entry.leaving_stops else "stopped"
    assert await record_of(server, run.run_id) == ("STOPPED", reason, "done")
    assert server.marks[before:] == ["begin wait", *STOPPED]


@each_entry
async def test_a_question(server: Server, entry: Entry) -> None:
    before, session = len(server.marks), fresh()
    run = await entry.start(server, "approve", session)
    if entry.reply is None:
        await answered(server, run.run_id)
        frames = await run.frames()
    else:
        asked = await run.frames()
        assert (await server.get(f"/runs/{run.run_id}"))["phase"] == "running"
        path, body = entry.reply(entry.body("approve", session, {}), asked)
        frames = entry.read(await server.call("POST", path, body, headers=dict(entry.headers)))
    assert entry.last(frames) == entry.ends["returned"]
    assert entry.said(frames).endswith("approved: True")
    assert (await record_of(server, run.run_id))[:2] == ("FINISHED", "returned")
    assert server.marks[before:] == ["begin approve", "end approve"]


async def answered(server: Server, run_id: str) -> None:
    """Answer by the route of the run, as soon as it asks."""
    seen = b""
    async with server.connect() as client:
        await client.send("GET", f"/runs/{run_id}/stream")
        await client.head()
        with server.deadline(15, "a question"):
            while (asked := re.search(rb'"data":\{"id":"([^"]+)"', seen)) is None:
                piece = await client.data()
                assert piece, seen
                seen += piece
        data = {"approval_request_id": asked[1].decode(), "approve": True}
        message = {"type": "mcp_approval_response", "role": "user", "content": [{"type": "data", "data": data}]}
        answer = await server.call("POST", f"/runs/{run_id}/input", message)
        assert answer.status == 202, answer


@each_entry
async def test_a_state(server: Server, entry: Entry) -> None:
    run = await entry.start(server, "state", fresh())
    frames = await run.frames()
    assert entry.last(frames) == entry.ends["returned"]
    assert entry.said(frames) == "step 1"
    shows = entry.path in ("/process", "/ws", "/ag-ui", "/ai-sdk/chat")
    assert entry.states(frames)[-1:] == ([{"step": 1}] if shows else [])


ENDPOINT = Entry(
    path="/watch",
    body=lambda text, session, fields: {},
    read=data_lines,
    last=lambda items: items[-1]["error"] if isinstance(items[-1], dict) else None,
    said=lambda items: "".join(item for item in items if isinstance(item, str)),
    ends={"returned": None, "exception": "internal", "shutdown": "shutdown"},
    busy="",
)
"""A stream of `@app.endpoint`. It is no run: only its client and the server end it."""


async def watching(server: Server, do: str) -> Opened:
    stack = AsyncExitStack()
    client = await stack.enter_async_context(server.connect())
    await client.send("GET", f"/watch?do={do}")
    return Opened(ENDPOINT, server, stack, client, await client.head())


@pytest.mark.parametrize(("do", "reason"), [("say", "returned"), ("fail", "exception")])
async def test_an_endpoint_ends(server: Server, do: str, reason: str) -> None:
    before = len(server.marks)
    frames = await (await watching(server, do)).frames()
    assert (ENDPOINT.last(frames), ENDPOINT.said(frames)) == (ENDPOINT.ends[reason], "waiting ")
    assert "secret detail" not in json.dumps(frames)
    assert server.marks[before:] == [f"begin {do}", f"end {do}"]


async def test_a_client_of_an_endpoint_hangs_up(server: Server) -> None:
    before = len(server.marks)
    stream = await watching(server, "wait")
    await begun(server, before)
    await stream.leave()
    await server.wait_until(lambda: len(server.marks) == before + 3, "end of the endpoint")
    assert server.marks[before:] == ["begin wait", *STOPPED]


@pytest.mark.parametrize("way", WAYS)
async def test_a_drain(start: Start, way: str) -> None:
    server = start(AGENT, way, env={"AGENTAPP_DRAIN_TIMEOUT": "0.3"}, **OPTIONS)
    runs = {name: await entry.start(server, "wait", fresh()) for name, entry in ENTRIES.items()}
    runs["endpoint"] = await watching(server, "wait")
    await server.wait_mark("begin wait", len(runs))
    server.send_signal()
    # The end of a task cannot be asked for: the server is gone then.
    del runs["task"]
    for name, run in runs.items():
        frames = await run.frames()
        assert (name, run.entry.last(frames)) == (name, run.entry.ends["shutdown"])
    assert await server.wait_exit() == 0
    assert sorted(server.marks) == sorted(["begin wait", *STOPPED] * (len(runs) + 1))
