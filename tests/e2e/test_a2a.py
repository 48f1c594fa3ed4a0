"""A2A 1.0 and 0.3 over real sockets: send, stream, get, list, cancel, subscribe, questions, errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .a2a_client import NEW, OLD, Frames, error, headers_of, result, rpc, saying, says, send, streaming, text_of
from .harness import Server, fresh

AGENT = "a2a_agent"
ALLOWED_LOG = r'^.*the handler failed.*$|^.*"secret detail".*$'

COMPLETED = "TASK_STATE_COMPLETED"


async def test_a_task_that_completes(server: Server) -> None:
    context = fresh("context")
    task = await send(server, "say a b c", contextId=context)
    assert task["contextId"] == context
    assert task["status"]["state"] == COMPLETED
    assert text_of(task) == "a b c "
    [asked] = task["history"]
    assert (asked["taskId"], asked["contextId"], asked["role"]) == (task["id"], context, "ROLE_USER")
    assert task["status"]["timestamp"].endswith("Z")
    assert await result(server, "GetTask", {"id": task["id"]}) == task
    run = await server.get(f"/runs/{task['id']}")
    assert (run["state"], run["session_id"]) == ("FINISHED", context)


async def test_the_same_in_0_3(server: Server) -> None:
    task = await send(server, "say a b c", OLD)
    assert task["kind"] == "task"
    assert task["status"]["state"] == "completed"
    [artifact] = task["artifacts"]
    assert artifact["parts"] == [{"kind": "text", "text": "a b c "}]
    [asked] = task["history"]
    assert (asked["kind"], asked["role"], asked["parts"]) == (
        "message",
        "user",
        [{"kind": "text", "text": "say a b c"}],
    )
    assert await result(server, "tasks/get", {"id": task["id"]}, OLD) == task


@pytest.mark.parametrize("path", ["/a2a", "/a2a/"])
@pytest.mark.parametrize("version", [NEW, OLD, "0.3.0", "1.0.1"])
async def test_both_paths_and_patch_versions(server: Server, path: str, version: str) -> None:
    method = "GetTask" if version.startswith("1") else "tasks/get"
    assert (await error(server, method, {"id": "nothing-here"}, version, path=path))["code"] == -32001


async def test_no_version_is_0_3_and_the_query_may_name_it(server: Server) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": "nothing-here"}}
    assert (await server.call("POST", "/a2a", body)).json()["error"]["code"] == -32001
    body["method"] = "GetTask"
    refused = (await server.call("POST", "/a2a", body)).json()["error"]
    assert refused["code"] == -32601
    assert "A2A-Version: 1.0" in refused["message"]
    assert (await server.call("POST", "/a2a?A2A-Version=1.0", body)).json()["error"]["code"] == -32001
    assert (await error(server, "GetTask", {"id": "x"}, "2.0"))["code"] == -32009


async def test_a_stream(server: Server) -> None:
    async with streaming(server, "SendStreamingMessage", {"message": saying("say a b c")}) as frames:
        first, *updates, last = await frames.all()
    task = first["task"]
    assert task["status"]["state"] == "TASK_STATE_WORKING"
    pieces = [update["artifactUpdate"] for update in updates]
    assert {piece["taskId"] for piece in pieces} == {task["id"]}
    assert len({piece["artifact"]["artifactId"] for piece in pieces}) == 1
    assert [piece["append"] for piece in pieces] == [False, True, True, True]
    assert [piece["lastChunk"] for piece in pieces] == [False, False, False, True]
    assert "".join(piece["artifact"]["parts"][0]["text"] for piece in pieces) == "a b c "
    assert last["statusUpdate"]["status"]["state"] == COMPLETED
    assert last["statusUpdate"]["taskId"] == task["id"]


async def test_a_stream_in_0_3(server: Server) -> None:
    params = {"message": saying("say a b", OLD)}
    async with streaming(server, "message/stream", params, OLD) as frames:
        items = await frames.all()
    kinds = ["task", *["artifact-update"] * 3, "status-update"]
    assert [item["kind"] for item in items] == kinds
    assert items[-1]["status"]["state"] == "completed"
    assert items[-1]["final"] is True
    assert items[1]["artifact"]["parts"] == [{"kind": "text", "text": "a "}]


async def test_all_kinds_of_parts(server: Server) -> None:
    expected = [
        {"text": "a text"},
        {"data": {"a": [1, 2]}, "mediaType": "application/json"},
        {"raw": "aGk=", "mediaType": "image/png"},
        {"url": "https://example.com/a.pdf", "mediaType": "application/pdf", "filename": "a.pdf"},
        {"raw": "aGk=", "mediaType": "text/plain", "filename": "b.txt"},
    ]
    [artifact] = (await send(server, "files"))["artifacts"]
    assert artifact["parts"] == expected
    assert (artifact["name"], artifact["description"]) == ("Bundle", "All kinds.")
    assert artifact["metadata"] == {"origin": "test"}
    async with streaming(server, "SendStreamingMessage", {"message": saying("files")}) as frames:
        updates = [item["artifactUpdate"] for item in (await frames.all())[1:-1]]
    assert [part for update in updates for part in update["artifact"]["parts"]] == expected
    assert [update["lastChunk"] for update in updates] == [False] * 4 + [True]
    assert updates[-1]["artifact"]["name"] == "Bundle"
    [old] = (await send(server, "files", OLD))["artifacts"]
    assert old["parts"] == [
        {"kind": "text", "text": "a text"},
        {"kind": "data", "data": {"a": [1, 2]}},
        {"kind": "file", "file": {"bytes": "aGk=", "mimeType": "image/png"}},
        {
            "kind": "file",
            "file": {"uri": "https://example.com/a.pdf", "mimeType": "application/pdf", "name": "a.pdf"},
        },
        {"kind": "file", "file": {"bytes": "aGk=", "mimeType": "text/plain", "name": "b.txt"}},
    ]


async def test_parts_of_the_client_reach_the_handler(server: Server) -> None:
    parts = [
        {"text": "parts"},
        {"data": {"x": 1}},
        {"url": "https://example.com/a.png", "mediaType": "image/png"},
        {"raw": "aGk=", "mediaType": "audio/wav"},
        {"raw": "aGk=", "filename": "a.bin"},
        {"url": "https://example.com/a.mp4", "mediaType": "video/mp4"},
    ]
    seen = ["TextContent", "DataContent", "ImageContent", "AudioContent", "FileContent", "VideoContent"]
    message = {**saying(""), "parts": parts}
    found = await result(server, "SendMessage", {"message": message})
    [artifact] = found["task"]["artifacts"]
    assert artifact["parts"][0]["data"] == seen


async def test_thoughts_and_tool_calls_are_status_updates(server: Server) -> None:
    async with streaming(server, "SendStreamingMessage", {"message": saying("think")}) as frames:
        items = await frames.all()
    statuses = [item["statusUpdate"]["status"] for item in items if "statusUpdate" in item]
    assert [status["state"] for status in statuses] == ["TASK_STATE_WORKING"] * 3 + [COMPLETED]
    told = [status["message"]["metadata"]["type"] for status in statuses[:-1]]
    assert told == ["reasoning", "function_call", "function_call_output"]
    assert statuses[0]["message"]["parts"] == [{"text": "I ponder."}]
    assert statuses[1]["message"]["parts"][0]["data"]["name"] == "search"


async def test_a_bare_message(server: Server) -> None:
    found = await result(server, "SendMessage", {"message": saying("reply you")})
    assert list(found) == ["message"]
    message = found["message"]
    assert (message["role"], message["parts"]) == ("ROLE_AGENT", [{"text": "bare you"}])
    assert message["contextId"]
    assert "taskId" not in message
    old = await send(server, "reply you", OLD)
    assert (old["kind"], old["role"]) == ("message", "agent")
    answer = await server.call("POST", "/process", {"input": "reply you", "stream": False})
    assert answer.json()["output"][0]["content"][0]["text"] == "bare you"


async def test_a_bare_message_in_a_stream(server: Server) -> None:
    async with streaming(server, "SendStreamingMessage", {"message": saying("reply you")}) as frames:
        [item] = await frames.all()
    assert item["message"]["parts"] == [{"text": "bare you"}]
    async with streaming(server, "SendStreamingMessage", {"message": saying("broken_reply")}) as frames:
        items = await frames.all()
    assert "task" in items[0]
    texts = [
        part["text"]
        for item in items
        if "artifactUpdate" in item
        for part in item["artifactUpdate"]["artifact"]["parts"]
    ]
    assert "".join(texts) == "firstsecond"


@pytest.mark.parametrize("version", [NEW, OLD])
async def test_a_question(server: Server, version: str) -> None:
    task = await send(server, "ask", version)
    status = task["status"]
    assert status["state"] in ("TASK_STATE_INPUT_REQUIRED", "input-required")
    assert status["message"]["parts"][0]["text"] == "Which colour?"
    again = await send(server, "blue", version, taskId=task["id"])
    assert again["id"] == task["id"]
    assert again["status"]["state"] in (COMPLETED, "completed")
    assert text_of(again) == "hm so blue"
    roles = [message["role"] for message in again["history"]]
    assert [role.removeprefix("ROLE_").lower() for role in roles] == ["user", "agent", "user"]


async def test_a_stream_ends_at_a_question_and_goes_on_with_the_answer(server: Server) -> None:
    async with streaming(server, "SendStreamingMessage", {"message": saying("ask")}) as frames:
        *_, last = await frames.all()
    assert last["statusUpdate"]["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    message = saying("red", taskId=last["statusUpdate"]["taskId"], contextId=last["statusUpdate"]["contextId"])
    async with streaming(server, "SendStreamingMessage", {"message": message}) as frames:
        items = await frames.all()
    assert "task" in items[0]
    assert any(says("so red")(item) for item in items)
    assert items[-1]["statusUpdate"]["status"]["state"] == COMPLETED


async def test_a_wrong_answer_is_asked_again(server: Server) -> None:
    task = await send(server, "approve")
    again = await send(server, "perhaps", taskId=task["id"])
    assert again["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert "fault" in again["status"]["message"]["parts"][-1]["data"]
    assert text_of(await send(server, "yes", taskId=task["id"])) == "approved: True"


async def test_authentication_is_required(server: Server) -> None:
    task = await send(server, "login")
    assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    assert (await send(server, "done", taskId=task["id"]))["status"]["state"] == COMPLETED


async def test_a_message_to_a_working_task(server: Server) -> None:
    task = await send(server, "receive", configuration={"returnImmediately": True})
    assert task["status"]["state"] in ("TASK_STATE_WORKING", "TASK_STATE_SUBMITTED")
    assert text_of(await send(server, "a word", taskId=task["id"])) == "got a word"


async def test_a_rejection_and_a_failure(server: Server) -> None:
    rejected = await send(server, "reject")
    assert rejected["status"]["state"] == "TASK_STATE_REJECTED"
    assert rejected["status"]["message"]["parts"] == [{"text": "I do not do that."}]
    failed = await send(server, "fail")
    assert failed["status"]["state"] == "TASK_STATE_FAILED"
    assert "secret" not in json.dumps(failed)
    assert text_of(failed) == "almost "


async def test_a_cancel_stops_the_run_and_returns_its_end(server: Server) -> None:
    async with streaming(server, "SendStreamingMessage", {"message": saying("wait")}) as frames:
        task = (await frames.until(lambda item: "task" in item))["task"]
        await frames.until(says("waiting "))
        cancelled = await result(server, "CancelTask", {"id": task["id"]})
        assert cancelled["status"]["state"] == "TASK_STATE_CANCELED"
        assert "cancelled wait" in server.marks
        last = (await frames.all())[-1]
    assert last["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"
    again = await error(server, "CancelTask", {"id": task["id"]})
    assert (again["code"], again["data"][0]["reason"]) == (-32002, "TASK_NOT_CANCELABLE")


async def test_stop_and_cancel_of_a_run_cancel_the_task(server: Server) -> None:
    for by in ("stop", "cancel"):
        context = fresh("context")
        async with streaming(
            server, "SendStreamingMessage", {"message": saying("wait", contextId=context)}
        ) as frames:
            task = (await frames.until(lambda item: "task" in item))["task"]
            if by == "stop":
                assert (await server.stop(wait=True, session_id=context))["run_id"] == task["id"]
            else:
                answer = await server.call("POST", f"/runs/{task['id']}/cancel?wait=1")
                assert answer.json()["stopped"]
            last = (await frames.all())[-1]
        assert last["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"
        assert (await result(server, "GetTask", {"id": task["id"]}))["status"]["state"] == "TASK_STATE_CANCELED"


async def test_subscribe_after_a_cut(server: Server) -> None:
    """Closing a stream harms neither the task nor another stream; a new one begins with the task as it is."""
    gate = fresh("gate")
    async with streaming(server, "SendStreamingMessage", {"message": saying(f"gate {gate}")}) as frames:
        task = (await frames.until(lambda item: "task" in item))["task"]
        await frames.until(says("before "))
    async with streaming(server, "SubscribeToTask", {"id": task["id"]}) as one:
        first = (await one.until(lambda item: "task" in item))["task"]
        assert text_of(first) == "before "
        async with streaming(server, "SubscribeToTask", {"id": task["id"]}) as two:
            await two.until(lambda item: "task" in item)
        (server.folder / gate).touch()
        items = await one.all()
    assert any(says("after")(item) for item in items)
    assert items[1]["artifactUpdate"]["append"] is True
    assert items[-1]["statusUpdate"]["status"]["state"] == COMPLETED
    assert text_of(await result(server, "GetTask", {"id": task["id"]})) == "before after"
    for version, method in ((NEW, "SubscribeToTask"), (NEW, "SubscribeToTask")):
        assert (await error(server, method, {"id": task["id"]}, version))["code"] == -32004


async def test_errors_of_old_streams_are_streams(server: Server) -> None:
    answer = await rpc(server, "tasks/resubscribe", {"id": "nothing-here"}, OLD)
    assert (answer.header("content-type") or "").startswith("text/event-stream")
    [frame] = answer.body.decode().strip().split("\n\n")
    assert json.loads(frame.removeprefix("data: "))["error"]["code"] == -32001


async def test_one_context_has_one_task_at_a_time(server: Server) -> None:
    context = fresh("context")
    task = await send(server, "wait", contextId=context, configuration={"returnImmediately": True})
    second = await send(server, "say hi", contextId=context)
    assert second["status"]["state"] == "TASK_STATE_REJECTED"
    assert second["status"]["message"]["metadata"] == {"code": "session_busy", "activeTaskId": task["id"]}
    assert (await result(server, "GetTask", {"id": second["id"]})) == second
    async with streaming(server, "SendStreamingMessage", {"message": saying("say", contextId=context)}) as frames:
        items = await frames.all()
    assert items[0]["task"]["status"]["state"] == "TASK_STATE_REJECTED"
    busy = await server.call("POST", "/process", {"input": "say hi", "session_id": context})
    assert busy.status == 409
    await result(server, "CancelTask", {"id": task["id"]})
    assert text_of(await send(server, "history", contextId=context)) == "1"


async def test_history_length(server: Server) -> None:
    task = await send(server, "ask")
    for length, count in ((None, 2), (0, 0), (1, 1), (9, 2)):
        params = {"id": task["id"], **({} if length is None else {"historyLength": length})}
        found = await result(server, "GetTask", params)
        assert len(found.get("history", [])) == count
    assert ("history" in await send(server, "say x", configuration={"historyLength": 0})) is False
    await result(server, "CancelTask", {"id": task["id"]})


async def test_the_list(server: Server) -> None:
    context = fresh("context")
    for number in range(5):
        await send(server, f"say {number}", contextId=context)
    asking = await send(server, "ask", contextId=context)
    seen, token = [], ""
    while True:
        page = await result(server, "ListTasks", {"contextId": context, "pageSize": 4, "pageToken": token})
        assert page["totalSize"] == 6
        assert page["pageSize"] == 4
        seen += page["tasks"]
        assert all("artifacts" not in task for task in page["tasks"])
        if not (token := page["nextPageToken"]):
            break
    assert len({task["id"] for task in seen}) == 6
    times = [task["status"]["timestamp"] for task in seen]
    assert times == sorted(times, reverse=True)
    for status, count in (("TASK_STATE_INPUT_REQUIRED", 1), (COMPLETED, 5), ("TASK_STATE_WORKING", 0)):
        page = await result(server, "ListTasks", {"context_id": context, "status": status})
        assert page["totalSize"] == count
    whole = await result(server, "ListTasks", {"contextId": context, "includeArtifacts": True, "status": COMPLETED})
    assert {text_of(task) for task in whole["tasks"]} == {f"{number} " for number in range(5)}
    later = await result(
        server, "ListTasks", {"contextId": context, "statusTimestampAfter": "2999-01-01T00:00:00Z"}
    )
    assert (later["tasks"], later["totalSize"], later["nextPageToken"]) == ([], 0, "")
    everything = await result(server, "ListTasks", {"pageSize": 100})
    assert asking["id"] in {task["id"] for task in everything["tasks"]}
    await result(server, "CancelTask", {"id": asking["id"]})


async def test_a_page_of_large_tasks_ends_early(server: Server) -> None:
    context = fresh("context")
    made = [(await send(server, "large 9000000", contextId=context))["id"] for _ in range(3)]
    pages, token = [], ""
    while not pages or token:
        page = await result(
            server, "ListTasks", {"contextId": context, "includeArtifacts": True, "pageToken": token}
        )
        pages.append([task["id"] for task in page["tasks"]])
        token = page["nextPageToken"]
    assert pages == [made[:0:-1], made[:1]]


WRONG: list[tuple[str, Any, str]] = [
    ("SendMessage", {}, "message"),
    ("SendMessage", {"message": {"role": "ROLE_USER", "parts": [{"text": "x"}]}}, "message.messageId"),
    ("SendMessage", {"message": {**saying("x"), "role": "boss"}}, "message.role"),
    ("SendMessage", {"message": {**saying("x"), "parts": []}}, "message.parts"),
    ("SendMessage", {"message": {**saying("x"), "parts": [{}]}}, "message.parts[0]"),
    ("SendMessage", {"message": {**saying("x"), "parts": [{"text": "a", "url": "b"}]}}, "message.parts[0]"),
    ("SendMessage", {"message": {**saying("x"), "parts": [{"raw": "%%%"}]}}, "message.parts[0].raw"),
    (
        "SendMessage",
        {"message": saying("x"), "configuration": {"historyLength": -1}},
        "configuration.historyLength",
    ),
    ("GetTask", {}, "id"),
    ("GetTask", {"id": 7}, "id"),
    ("GetTask", {"id": "x", "historyLength": -1}, "historyLength"),
    ("ListTasks", {"pageSize": 0}, "pageSize"),
    ("ListTasks", {"pageSize": 101}, "pageSize"),
    ("ListTasks", {"pageToken": "nonsense"}, "pageToken"),
    ("ListTasks", {"status": "DONE"}, "status"),
    ("ListTasks", {"statusTimestampAfter": "yesterday"}, "statusTimestampAfter"),
]


@pytest.mark.parametrize(("method", "params", "field"), WRONG)
async def test_wrong_parameters_are_named(server: Server, method: str, params: Any, field: str) -> None:
    refused = await error(server, method, params)
    assert refused["code"] == -32602
    details = {each["@type"]: each for each in refused["data"]}
    assert details["type.googleapis.com/google.rpc.ErrorInfo"]["domain"] == "a2a-protocol.org"
    violations = details["type.googleapis.com/google.rpc.BadRequest"]["fieldViolations"]
    assert field in [each["field"] for each in violations]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{nonsense", -32700),
        (b"", -32700),
        (b"[]", -32600),
        (b'"x"', -32600),
        (b'{"id":1,"method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"GetTask"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"Nothing"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"message/send","params":{}}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":[1]}', -32602),
    ],
)
async def test_malformed_requests(server: Server, body: bytes, code: int) -> None:
    headers = {**headers_of(NEW), "Content-Type": "application/json"}
    answer = await server.call("POST", "/a2a", body, headers=headers)
    assert answer.json()["error"]["code"] == code


async def test_other_media_types_are_refused(server: Server) -> None:
    answer = await server.call("POST", "/a2a", b"{}", headers={"Content-Type": "text/plain"})
    assert (answer.status, answer.json()["error"]["code"]) == (415, -32005)


async def test_unknown_fields_are_dropped_and_snake_case_is_read(server: Server) -> None:
    message = {
        "message_id": "m1",
        "context_id": fresh("context"),
        "role": "ROLE_USER",
        "parts": [{"text": "say x", "media_type": "text/plain", "novel": 1}],
        "novel": {"x": 1},
    }
    params = {"message": message, "novel": 1, "configuration": {"history_length": 1, "return_immediately": False}}
    task = (await result(server, "SendMessage", params))["task"]
    assert task["contextId"] == message["context_id"]
    assert "novel" not in json.dumps(task)
    assert task["history"][0]["messageId"] == "m1"


async def test_a_context_that_is_not_the_tasks_own(server: Server) -> None:
    task = await send(server, "ask")
    message = saying("x", taskId=task["id"], contextId=fresh("other"))
    assert (await error(server, "SendMessage", {"message": message}))["code"] == -32602
    await result(server, "CancelTask", {"id": task["id"]})
    refused = await error(server, "SendMessage", {"message": saying("x", taskId=task["id"])})
    assert (refused["code"], refused["data"][0]["metadata"]["state"]) == (-32004, "TASK_STATE_CANCELED")
    refused = await error(server, "SendMessage", {"message": saying("x", taskId="nothing-here")})
    assert refused["code"] == -32001


async def test_what_a_handler_sees(server: Server) -> None:
    params = {
        "message": saying("extra", metadata={"a": 1}, referenceTaskIds=["t1"]),
        "configuration": {"acceptedOutputModes": ["text/plain"]},
        "metadata": {"b": 2},
    }
    found = await result(
        server, "SendMessage", params, A2A_Extensions="https://example.com/ext/one, https://example.com/unknown"
    )
    data = found["task"]["artifacts"][0]["parts"][0]["data"]
    assert data == {
        "version": "1.0",
        "message_id": params["message"]["messageId"],
        "metadata": {"b": 2},
        "message_metadata": {"a": 1},
        "extensions": ["https://example.com/ext/one"],
        "accepted_output_modes": ["text/plain"],
        "reference_task_ids": ["t1"],
    }


async def test_extensions_are_confirmed(server: Server) -> None:
    answer = await rpc(
        server, "SendMessage", {"message": saying("say x")}, A2A_Extensions="https://example.com/ext/one"
    )
    assert answer.header("a2a-extensions") == "https://example.com/ext/one"
    assert (await rpc(server, "SendMessage", {"message": saying("say x")})).header("a2a-extensions") is None


async def test_an_idempotency_key(server: Server) -> None:
    params = {"message": saying("say x")}
    key = fresh("key")
    one, two = [await result(server, "SendMessage", params, Idempotency_Key=key) for _ in range(2)]
    assert one["task"]["id"] == two["task"]["id"]


async def test_the_card(server: Server) -> None:
    host = {"Host": f"127.0.0.1:{server.port}"}
    answer = await server.call("GET", "/.well-known/agent-card.json", headers=host)
    card = answer.json()
    base = f"http://127.0.0.1:{server.port}"
    assert card["name"] == "Ada"
    assert [
        (each["url"], each["protocolBinding"], each["protocolVersion"]) for each in card["supportedInterfaces"]
    ] == [
        (f"{base}/a2a", "JSONRPC", "1.0"),
        (base, "HTTP+JSON", "1.0"),
        (f"{base}/a2a", "JSONRPC", "0.3"),
    ]
    assert (card["url"], card["preferredTransport"], card["protocolVersion"]) == (f"{base}/a2a", "JSONRPC", "0.3.0")
    tag = answer.header("etag")
    assert tag
    assert "max-age=" in (answer.header("cache-control") or "")
    again = await server.call("GET", "/.well-known/agent-card.json", headers={**host, "If-None-Match": tag})
    assert (again.status, again.body, again.header("etag")) == (304, b"", tag)
    assert (await server.call("GET", "/.well-known/agent.json", headers=host)).json() == card


# The HTTP+JSON binding.


async def rest(server: Server, method: str, path: str, body: Any = None, **headers: str) -> Any:
    return await server.call(method, path, body, headers=headers_of(NEW, **headers))


async def test_rest_sends_and_reads(server: Server) -> None:
    context = fresh("context")
    answer = await rest(server, "POST", "/message:send", {"message": saying("say a b", contextId=context)})
    assert (answer.status, answer.header("content-type")) == (200, "application/a2a+json")
    task = answer.json()["task"]
    assert text_of(task) == "a b "
    assert (await rest(server, "GET", f"/tasks/{task['id']}")).json() == task
    short = (await rest(server, "GET", f"/tasks/{task['id']}?historyLength=0")).json()
    assert "history" not in short
    page = (await rest(server, "GET", f"/tasks?contextId={context}&pageSize=1&includeArtifacts=true")).json()
    assert (page["totalSize"], page["tasks"]) == (1, [task])
    bare = (await rest(server, "POST", "/message:send", {"message": saying("reply x")})).json()
    assert list(bare) == ["message"]


async def test_rest_streams_subscribes_and_cancels(server: Server) -> None:
    async with server.connect() as client:
        await client.send("POST", "/message:stream", {"message": saying("wait")}, headers=headers_of(NEW))
        frames = Frames(client, False)
        task = (await frames.until(lambda item: "task" in item))["task"]
        await frames.until(says("waiting "))
        for method in ("GET", "POST"):
            async with server.connect() as other:
                await other.send(method, f"/tasks/{task['id']}:subscribe", headers=headers_of(NEW))
                assert (
                    text_of((await Frames(other, False).until(lambda item: "task" in item))["task"]) == "waiting "
                )
        cancelled = await rest(server, "POST", f"/tasks/{task['id']}:cancel")
        assert cancelled.json()["status"]["state"] == "TASK_STATE_CANCELED"
        assert (await frames.all())[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"
    again = await rest(server, "POST", f"/tasks/{task['id']}:cancel", {})
    assert again.status == 400
    assert again.json()["error"]["details"][0]["reason"] == "TASK_NOT_CANCELABLE"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("GET", "/tasks/nothing-here", None, 404, "TASK_NOT_FOUND"),
        ("POST", "/tasks/nothing-here:cancel", None, 404, "TASK_NOT_FOUND"),
        ("GET", "/tasks/nothing-here:subscribe", None, 404, "TASK_NOT_FOUND"),
        ("GET", "/tasks/nothing-here/pushNotificationConfigs", None, 404, "TASK_NOT_FOUND"),
        ("DELETE", "/tasks/nothing-here/pushNotificationConfigs/x", None, 404, "TASK_NOT_FOUND"),
        ("GET", "/tasks?pageSize=0", None, 400, "INVALID_PARAMS"),
        ("GET", "/tasks?pageSize=many", None, 400, "INVALID_PARAMS"),
        ("POST", "/message:send", {}, 400, "INVALID_PARAMS"),
        ("POST", "/message:send", [], 400, "INVALID_REQUEST"),
        ("POST", "/message:send", b"{", 400, "JSON_PARSE"),
        ("GET", "/extendedAgentCard", None, 400, "UNSUPPORTED_OPERATION"),
    ],
)
async def test_rest_errors(server: Server, method: str, path: str, body: Any, status: int, reason: str) -> None:
    answer = await rest(server, method, path, body)
    assert answer.status == status
    fault = answer.json()["error"]
    assert fault["code"] == status
    assert fault["details"][0]["reason"] == reason


async def test_rest_needs_the_version(server: Server) -> None:
    for headers in ({}, {"A2A-Version": "0.3"}, {"A2A-Version": "9.9"}):
        answer = await server.call("GET", "/tasks", headers=headers)
        assert answer.status == 400
        assert answer.json()["error"]["details"][0]["reason"] == "VERSION_NOT_SUPPORTED"


async def test_a_long_answer_is_whole_after_a_cut(server: Server) -> None:
    """More events than a node keeps: the task of a new subscriber has the text of all of them."""
    gate = fresh("gate")
    async with streaming(server, "SendStreamingMessage", {"message": saying(f"long {gate}")}) as frames:
        task = (await frames.until(lambda item: "task" in item))["task"]
        await frames.until(says("11999 "))
    expected = "".join(f"{number} " for number in range(12000))
    async with streaming(server, "SubscribeToTask", {"id": task["id"]}) as again:
        first = (await again.until(lambda item: "task" in item))["task"]
        assert text_of(first) == expected
        (server.folder / gate).touch()
        items = await again.all()
    assert any(says("end")(item) for item in items)
    assert text_of(await result(server, "GetTask", {"id": task["id"]})) == expected + "end"
