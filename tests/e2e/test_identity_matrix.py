"""Every action of every entry, by its owner, by another user, on something unknown, and with credentials that do
not count; and again with hooks that fail. The cells are counted, and no route is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
from cryptography.x509 import DNSName

from tests.certificates import Authority
from trio_agentapp.auth.keys import KeyRecord, hash_of, line_of, new_key

from .harness import Server
from .sockets import connect

Start = Callable[..., Server]

ALICE, BOB, EXPIRED, WRONG = (new_key() for _ in range(4))
PAST = datetime(2020, 1, 1, tzinfo=UTC)
KEYS = [
    KeyRecord(name="alice", user="alice", sha256=hash_of(ALICE)),
    KeyRecord(name="bob", user="bob", sha256=hash_of(BOB)),
    KeyRecord(name="alice, long ago", user="alice", sha256=hash_of(EXPIRED), expires=PAST),
]
NOT_COUNTED = {
    "no identity": ({}, "unauthorized"),
    "not a scheme that counts": ({"Authorization": f"Basic {ALICE}"}, "unauthorized"),
    "wrong": ({"Authorization": f"Bearer {WRONG}"}, "invalid_credentials"),
    "expired": ({"Authorization": f"Bearer {EXPIRED}"}, "credentials_expired"),
}
PUBLIC = {
    "GET /",
    "GET /health",
    "GET /liveness",
    "GET /readiness",
    "GET /openapi.json",
    "GET /docs",
    "GET /own/routes",
    "GET /chat",
    "GET /chat/<name>",
    "GET /.well-known/agent-card.json",
    "GET /.well-known/agent.json",
    "GET /static/<path:filename>",
}


DONE = (200, 201, 202, 204)
MESSAGE = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}
FOREVER = {**MESSAGE, "parts": [{"text": "forever"}]}
HI = {"role": "user", "content": "hi"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@attrs.frozen(kw_only=True)
class Action:
    """What a client can ask for. `T` in path and body is its target, of this kind; None: it starts a run."""

    route: str
    kind: str | None
    path: str
    body: Any = None
    own: tuple[int, ...] = DONE
    foreign: Any = None
    """The body with which another user would act for Alice. Only if the action has no target."""
    unknown_is_fine: bool = False
    """What does not exist is no error: the answer is that of something that has ended."""
    ended: bool = False
    """The run must have ended before its owner asks."""
    listing: bool = False
    """The answer lists things; that of another user must not have the target."""

    @property
    def method(self) -> str:
        return self.route.split()[0]

    def __str__(self) -> str:
        rpc = (
            self.body.get("method", "")
            if isinstance(self.body, dict) and self.route.startswith("POST /a2a")
            else ""
        )
        return f"{self.route} {rpc}".strip()


def on(route: str, kind: str, body: Any = None, path: str | None = None, **options: Any) -> Action:
    path = path or re.sub(r"<[^>]*config_id>", "c", route.split()[1])
    return Action(route=route, kind=kind, path=re.sub(r"<[^>]*>", "T", path), body=body, **options)


def start(route: str, body: Any, foreign: Any, **options: Any) -> Action:
    return Action(route=route, kind=None, path=route.split()[1], body=body, foreign=foreign, **options)


def rpc(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


CONFIG = {"url": "https://example.com/", "id": "c"}
TASK_CONFIGS = "/tasks/<task_id>/pushNotificationConfigs"
FOR_ALICE = {"metadata": {"user_id": "alice"}}
ASK_UI = {"id": "chat-1", "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]}
ASK_AGUI = {
    "threadId": "t1", "runId": "r1", "messages": [{"id": "m", "role": "user", "content": "hi"}],
    "tools": [], "context": [], "state": {}, "forwardedProps": {},
}  # fmt: skip
ASK_OPENAI = {"model": "Agent", "input": "hi"}
ASK_COMPLETION = {"model": "Agent", "messages": [HI]}


def a2a_actions(path: str) -> list[Action]:
    route = f"POST {path}"

    def call(method: str, params: Any, kind: str | None = "a2a", **options: Any) -> Action:
        return Action(route=route, kind=kind, path=path, body=rpc(method, params), **options)

    said = {"message": MESSAGE}
    return [
        *(
            call(name, said, None, foreign=rpc(name, {"message": {**MESSAGE, **FOR_ALICE}}))
            for name in ("SendMessage", "SendStreamingMessage")
        ),
        call("SendMessage", {"message": {**MESSAGE, "taskId": "T"}, "configuration": {"returnImmediately": True}}),
        call("GetTask", {"id": "T"}),
        call("ListTasks", {}, listing=True),
        call("CancelTask", {"id": "T"}),
        call("SubscribeToTask", {"id": "T"}),
        call("CreateTaskPushNotificationConfig", {"taskId": "T", **CONFIG}, "config"),
        call("GetTaskPushNotificationConfig", {"taskId": "T", "id": "c"}, "config"),
        call("ListTaskPushNotificationConfigs", {"taskId": "T"}, "config"),
        call("DeleteTaskPushNotificationConfig", {"taskId": "T", "id": "c"}, "config"),
        call("GetExtendedAgentCard", {}, "anyone's"),
    ]


def openai_actions(prefix: str) -> list[Action]:
    response = f"{prefix}/responses/<response_id>"
    return [
        start(f"POST {prefix}/responses", ASK_OPENAI, {**ASK_OPENAI, "user": "alice"}),
        on(f"POST {prefix}/responses", "response", {**ASK_OPENAI, "previous_response_id": "T"}, ended=True),
        on(f"GET {response}", "response"),
        on(f"GET {response}", "response", path=f"{prefix}/responses/T?stream=true"),
        on(f"POST {response}/cancel", "response"),
        on(f"DELETE {response}", "response", own=(405,)),
        on(f"GET {response}/input_items", "response", own=(405,)),
        on(f"POST {prefix}/conversations", "anyone's", {}),
        start(f"POST {prefix}/chat/completions", ASK_COMPLETION, {**ASK_COMPLETION, "user": "alice"}),
        on(f"GET {prefix}/models", "anyone's"),
        on(f"GET {prefix}/models/<path:model>", "anyone's", path=f"{prefix}/models/agent"),
    ]


def task_actions(path: str, kind: str, body: Any, foreign: Any) -> list[Action]:
    return [
        start(f"POST {path}", body, foreign),
        on(f"GET {path}/<task_id>", kind),
        on(f"POST {path}/<task_id>/cancel", kind),
    ]


ACTIONS = [
    start("POST /process", {"input": "hi"}, {"input": "hi", "user_id": "alice"}),
    on("POST /stop", "run", {"run_id": "T"}, unknown_is_fine=True),
    on("POST /stop", "session", {"session_id": "T", "user_id": "alice"}),
    on("GET /runs", "run", path="/runs?user_id=alice", listing=True),
    on("GET /runs", "run", path="/runs", listing=True),
    on("GET /questions", "run", path="/questions", listing=True),
    on("GET /questions", "run", path="/questions?user_id=alice", listing=True),
    on("POST /runs/cancel", "run", {"run_ids": ["T"]}, unknown_is_fine=True),
    on("GET /runs/<run_id>", "run"),
    on("GET /runs/<run_id>/stream", "run"),
    on("GET /runs/<run_id>/tree", "run"),
    on("GET /runs/<run_id>/wait", "run", ended=True),
    on("POST /runs/<run_id>/cancel", "run"),
    on("POST /runs/<run_id>/input", "run", HI),
    on("GET /sessions/<anything:session_id>", "session", path="/sessions/T?user_id=alice"),
    on("GET /sessions/<anything:session_id>/history", "session", path="/sessions/T/history?user_id=alice"),
    *task_actions("/job", "task", {}, None),
    *task_actions("/process/task", "background", {"input": "hi"}, {"input": "hi", "user_id": "alice"}),
    start("POST /ag-ui", ASK_AGUI, {**ASK_AGUI, "forwardedProps": {"userId": "alice"}}),
    start("POST /ai-sdk/chat", ASK_UI, {**ASK_UI, "user_id": "alice"}),
    on(
        "GET /ai-sdk/chat/<chat_id>/stream",
        "session",
        path="/ai-sdk/chat/T/stream?user_id=alice",
        unknown_is_fine=True,
    ),
    *openai_actions("/v1"),
    *openai_actions("/compatible-mode/v1"),
    *a2a_actions("/a2a"),
    *a2a_actions("/a2a/"),
    start("POST /message:send", {"message": MESSAGE}, {"message": {**MESSAGE, **FOR_ALICE}}),
    start("POST /message:stream", {"message": MESSAGE}, {"message": {**MESSAGE, **FOR_ALICE}}),
    on("GET /tasks", "a2a", listing=True),
    on("GET /tasks/<task_id>", "a2a"),
    on("POST /tasks/<task_id>:cancel", "a2a"),
    on("GET /tasks/<task_id>:subscribe", "a2a"),
    on("POST /tasks/<task_id>:subscribe", "a2a"),
    on(f"POST {TASK_CONFIGS}", "config", CONFIG),
    on(f"GET {TASK_CONFIGS}", "config"),
    on(f"GET {TASK_CONFIGS}/<config_id>", "config"),
    on(f"DELETE {TASK_CONFIGS}/<config_id>", "config"),
    on("GET /extendedAgentCard", "anyone's"),
]


@attrs.frozen
class Answer:
    status: int
    headers: httpx.Headers
    body: str

    @property
    def refused(self) -> bool:
        return self.status not in DONE or ('"jsonrpc"' in self.body and '"error":{' in self.body)

    def masked(self, target: str) -> tuple[int, str]:
        body = self.body.replace(target, "T")
        body = re.sub(r'"(request_id|instance|requestId|timestamp)":"[^"]*"', r'"\1":""', body)
        return self.status, re.sub(r'"latency_ms":[\d.]+', '"latency_ms":0', body)


class Visitor:
    """Calls the server."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.not_counted = NOT_COUNTED
        self.cells = 0

    async def call(self, action: Action, target: str, headers: Mapping[str, str], body: Any = None) -> Answer:
        """One cell of the matrix."""
        self.cells += 1
        body = action.body if body is None else body
        return await self.request(action.method, action.path.replace("T", target, 1), _aimed(body, target), headers)

    async def request(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Answer:
        """The answer, without the rest of an endless stream."""
        headers = {"A2A-Version": "1.0", **headers}
        with trio.move_on_after(15):
            async with self._http.stream(method, path, json=body, headers=headers) as response:
                endless = response.headers.get("content-type", "").startswith("text/event-stream")
                text = ""
                with trio.CancelScope() as scope:
                    async for piece in response.aiter_text():
                        text += piece
                        if endless:
                            scope.cancel()  # not `break`, which would leave generators of httpx open
            return Answer(response.status_code, response.headers, text)
        return Answer(0, httpx.Headers(), "no answer within 15 s")

    async def make(self, kind: str | None) -> str:
        """Start something of Alice that does not end, and return its id."""

        async def ask(path: str, body: Any) -> Any:
            answer = await self.request("POST", path, body, bearer(ALICE))
            assert answer.status in DONE, (path, answer)
            return httpx.Response(200, text=answer.body).json()

        match kind:
            case "run" | "session":
                run = await ask("/process", {"input": "forever", "background": True, "on_disconnect": "continue"})
                return str(run["run_id" if kind == "run" else "session_id"])
            case "task":
                return str((await ask("/job", {"seconds": 1000}))["task_id"])
            case "background":
                return str((await ask("/process/task", {"input": "forever"}))["task_id"])
            case "response":
                return str(
                    (await ask("/v1/responses", {**ASK_OPENAI, "input": "forever", "background": True}))["id"]
                )
            case "a2a" | "config":
                asked = {"message": FOREVER, "configuration": {"returnImmediately": True}}
                task = str((await ask("/message:send", asked))["task"]["id"])
                if kind == "config":
                    await ask(f"/tasks/{task}/pushNotificationConfigs", CONFIG)
                return task
        return "none"

    async def alive(self, kind: str | None, target: str) -> bool:
        """Whether what `make` has started still runs."""
        paths = {
            "run": "/runs/T", "session": "/sessions/T?user_id=alice", "task": "/job/T",
            "background": "/process/task/T", "response": "/v1/responses/T", "a2a": "/tasks/T", "config": "/tasks/T",
        }  # fmt: skip
        if kind not in paths:
            return True
        answer = await self.request("GET", paths[kind].replace("T", target), None, bearer(ALICE))
        return bool(re.search(r'"(RUNNING|running|in_progress|TASK_STATE_WORKING)"', answer.body))

    async def end(self, kind: str | None, target: str) -> None:
        paths = {
            "task": "/job/T/cancel?wait=1", "background": "/process/task/T/cancel?wait=1",
            "response": "/v1/responses/T/cancel", "a2a": "/tasks/T:cancel", "config": "/tasks/T:cancel",
        }  # fmt: skip
        fields = {"run": {"run_id": target}, "session": {"session_id": target, "user_id": "alice"}}
        path = paths.get(kind or "", "/stop?wait=1").replace("T", target)
        if kind in paths or kind in fields:
            await self.request("POST", path, fields.get(kind or "", {}), bearer(ALICE))


class Certified(Visitor):
    """Calls the server with a certificate in place of each key. An expired one does not get as far as a request."""

    def __init__(self, without: httpx.AsyncClient, by_key: Mapping[str, httpx.AsyncClient]) -> None:
        super().__init__(without)
        self.not_counted = {name: each for name, each in NOT_COUNTED.items() if name != "expired"}
        self._without = without
        self._by_key = by_key

    async def request(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Answer:
        kind, _, key = headers.get("Authorization", "").partition(" ")
        self._http = self._by_key[key] if kind == "Bearer" else self._without
        return await super().request(method, path, body, {})


def _aimed(body: Any, target: str) -> Any:
    if isinstance(body, dict):
        return {name: _aimed(value, target) for name, value in body.items()}
    if isinstance(body, list):
        return [_aimed(value, target) for value in body]
    return target if body == "T" else body


def _unknown(target: str) -> str:
    prefix, line, digits = target.rpartition("_")
    return prefix + line + re.sub("[0-9a-f]", "0", digits)


@asynccontextmanager
async def visiting(start: Start, folder: Path, **env: str) -> AsyncIterator[tuple[Server, Visitor]]:
    keys = folder / "keys"
    keys.write_text("# of this test\n\n" + "".join(line_of(key) + "\n" for key in KEYS))
    server = start("every_route", env={"WHERE": str(folder), **env})
    # A refusal that is sent before the body has arrived ends its connection, so no connection is used twice.
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30, limits=limits) as http:
        yield server, Visitor(http)


@asynccontextmanager
async def visiting_with_certificates(start: Start, folder: Path) -> AsyncIterator[tuple[Server, Visitor]]:
    authority = Authority(folder)
    files = authority.server()
    given = {"CERTFILE": files.cert, "KEYFILE": files.key, "CA_CERTS": authority.cert, "CERT_REQS": "optional"}
    env = {"WHERE": str(folder), **{f"AGENTAPP_{name}": str(value) for name, value in given.items()}}
    server = start("every_route", env=env, tls=authority.context())
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
    async with AsyncExitStack() as stack:

        async def client(name: str | None) -> httpx.AsyncClient:
            issued = None if name is None else authority.issue(name, DNSName(name))
            http = httpx.AsyncClient(
                base_url=f"https://localhost:{server.port}",
                timeout=30,
                limits=limits,
                verify=authority.context(issued),
            )
            return await stack.enter_async_context(http)

        by_key = {ALICE: await client("alice"), BOB: await client("bob"), WRONG: await client("mallory")}
        yield server, Certified(await client(None), by_key)


Visiting = Callable[[Start, Path], AbstractAsyncContextManager[tuple[Server, Visitor]]]


ONCE = [action for action in ACTIONS if not action.path.startswith(("/compatible-mode/", "/a2a/"))]
"""Without what is served at a second path, too: a handshake for each cell takes time."""


@pytest.mark.parametrize(
    ("visiting", "actions"),
    [(visiting, ACTIONS), (visiting_with_certificates, ONCE)],
    ids=["keys", "certificates"],
)
async def test_the_matrix(start: Start, tmp_path: Path, visiting: Visiting, actions: list[Action]) -> None:
    async with visiting(start, tmp_path) as (server, visitor):
        faults: list[str] = []
        for action in actions:
            target = await visitor.make(action.kind)
            faults += [f"{action}: {fault}" for fault in await _row(visitor, action, target)]
            await visitor.end(action.kind, target)
        assert not faults, "\n".join(faults)
        targeted = sum(action.kind not in (None, "anyone's") for action in actions)
        foreign = sum(action.foreign is not None for action in actions)
        lists = sum(action.listing for action in actions)
        assert visitor.cells == len(actions) * (1 + len(visitor.not_counted)) + 2 * targeted + foreign - lists
        routes = set(json.loads((await visitor.request("GET", "/own/routes", None, {})).body))
        routes = {route for route in routes if not route.startswith(("HEAD", "OPTIONS"))}
        assert routes - PUBLIC - {"GET /ws"} == {action.route for action in ACTIONS}
        server.close(allowed=".*a push notification was not delivered.*")  # the address is made up


async def _row(visitor: Visitor, action: Action, target: str) -> list[str]:
    """The cells of one action. Returns what is wrong in them."""
    faults = []
    is_a2a = action.path.startswith(("/a2a", "/message", "/tasks", "/extended"))
    for name, (headers, code) in visitor.not_counted.items():
        answer = await visitor.call(action, target, headers)
        if answer.status != 401 or not answer.headers.get("www-authenticate", "").startswith("Bearer"):
            faults.append(f"{name}: {answer}")
        elif code not in answer.body and not is_a2a and not action.path.startswith("/ai-sdk"):
            faults.append(f"{name}: no code {code}: {answer}")
    if action.foreign is not None:
        answer = await visitor.call(action, target, bearer(BOB), action.foreign)
        if answer.status != 403:
            faults.append(f"another's: {answer}")
    elif action.listing:
        answer = await visitor.call(action, target, bearer(BOB))
        if target in answer.body:
            faults.append(f"another's: {answer}")
    elif action.kind not in (None, "anyone's"):
        unknown = _unknown(target)
        anothers = await visitor.call(action, target, bearer(BOB))
        absent = await visitor.call(action, unknown, bearer(BOB))
        if anothers.masked(target) != absent.masked(unknown):
            faults.append(f"another's and unknown differ: {anothers} {absent}")
        elif not anothers.refused and not action.unknown_is_fine:
            faults.append(f"another's: {anothers}")
    if not await visitor.alive(action.kind, target):
        faults.append("it had an effect on the run of another user")
    if action.ended:
        await visitor.end(action.kind, target)
    answer = await visitor.call(action, target, bearer(ALICE))
    if answer.status not in action.own or (action.own == DONE and answer.refused):
        faults.append(f"own: {answer}")
    if action.listing and target not in answer.body:
        faults.append(f"own is not listed: {answer}")
    return faults


FAILURES = [
    (hook, how, env)
    for hook, env in (("authenticate", {}), ("authorize", {"AUTHORIZE": "1"}))
    for how in ("raises", "hangs", "late")
]
UNASKED = {
    "GetExtendedAgentCard",
    "GET /extendedAgentCard",
    "POST /v1/conversations",
    "POST /compatible-mode/v1/conversations",
    "GET /v1/models",
    "GET /v1/models/<path:model>",
    "GET /compatible-mode/v1/models",
    "GET /compatible-mode/v1/models/<path:model>",
}
"""Actions for which `authorize` is not asked, because they are about no user."""


@pytest.mark.parametrize(("hook", "how", "env"), FAILURES)
async def test_the_matrix_with_a_hook_that_fails(
    start: Start, tmp_path: Path, hook: str, how: str, env: dict[str, str]
) -> None:
    """Alice, with a key that counts, and on what is hers: everything is refused, and nothing has an effect."""
    async with visiting(start, tmp_path, AUTH_TIMEOUT="1", **env) as (server, visitor):
        made = {kind: await visitor.make(kind) for kind in sorted({str(action.kind) for action in ACTIONS})}
        assert all([await visitor.alive(kind, target) for kind, target in made.items()])
        (tmp_path / "mode").write_text(f"{hook} {how}")
        answers: dict[int, Answer] = {}

        async def ask(number: int, action: Action) -> None:
            answers[number] = await visitor.call(action, made[str(action.kind)], bearer(ALICE))

        async with trio.open_nursery() as nursery:
            for number, action in enumerate(ACTIONS):
                nursery.start_soon(ask, number, action)
        faults = [
            f"{action}: {answers[number]}"
            for number, action in enumerate(ACTIONS)
            if not _is_refused(action, answers[number], made[str(action.kind)], hook, how)
        ]
        assert not faults, "\n".join(faults)
        assert visitor.cells == len(ACTIONS) == len(answers)
        (tmp_path / "mode").write_text("")
        for kind, target in made.items():
            assert await visitor.alive(kind, target), kind
            await visitor.end(kind, target)
        assert (
            "the hook is broken" in server.log
            if how == "raises"
            else f"the {hook} hook took more than" in server.log
        )
        server.close(allowed=rf".*the {hook} hook .*")


def _is_refused(action: Action, answer: Answer, target: str, hook: str, how: str) -> bool:
    if hook == "authenticate":
        return answer.status == (401 if how == "raises" else 503)
    if any(str(action).endswith(name) for name in UNASKED):
        return answer.status in DONE
    if action.listing or action.unknown_is_fine:
        return (
            answer.refused
            or target not in answer.body
            or '"accepted":false' in answer.body
            or "IDLE" in answer.body
        )
    if "previous_response_not_found" in answer.body:
        return answer.status == 400
    return answer.refused and answer.status in (200, 403, 404)


SOCKET_CREDENTIALS = {"no identity": None, "wrong": WRONG, "expired": EXPIRED}


@pytest.mark.parametrize("by_header", [True, False])
@pytest.mark.parametrize("name", SOCKET_CREDENTIALS)
async def test_a_socket_with_credentials_that_do_not_count(
    start: Start, tmp_path: Path, name: str, by_header: bool
) -> None:
    key = SOCKET_CREDENTIALS[name]
    async with visiting(start, tmp_path) as (server, _):
        headers = bearer(key) if key is not None and by_header else {}
        async with connect(server, headers=headers, ready=False) as socket:
            if not headers:
                await socket.send("init", **({} if key is None else {"token": key}))
            assert (await socket.wait_closed())[0] == 4401
        server.close()


async def test_the_actions_of_a_socket(start: Start, tmp_path: Path) -> None:
    async with visiting(start, tmp_path) as (server, visitor):
        run = await visitor.make("run")
        async with connect(server, headers=bearer(BOB)) as socket:
            await socket.send("start", id="a", request={"input": "hi", "user_id": "alice"})
            assert (await socket.wait_for("a", "error"))["error"]["code"] == "forbidden"
            answers = []
            for id, run_id in (("b", run), ("c", "0" * 32)):
                await socket.send("attach", id=id, run_id=run_id)
                answers.append((await socket.wait_for(id, "error"))["error"])
                await socket.send("attach", id=id, run_id=run_id, user_id="alice")
                answers.append((await socket.wait_for(id, "error"))["error"])
            assert answers[0]["code"] == "run_not_found"
            assert {str({**each, "request_id": ""}) for each in answers} == {str({**answers[0], "request_id": ""})}
        assert await visitor.alive("run", run)
        async with connect(server, ready=False) as socket:
            await socket.send("init", token=ALICE)
            assert await socket.receive() == {"type": "ready"}
            await socket.send("attach", id="a", run_id=run)
            await socket.wait_for("a", "event")
            await socket.send("input", id="a", message=HI)
            await socket.send("stop", id="a", wait=True)
            assert (await socket.wait_for("a", "stopped"))["receipt"]["stopped"] is True
        server.close()


@pytest.mark.parametrize(("how", "code"), [("raises", 4401), ("hangs", 1013), ("late", 1013)])
async def test_a_socket_and_a_hook_that_fails(start: Start, tmp_path: Path, how: str, code: int) -> None:
    async with visiting(start, tmp_path, AUTH_TIMEOUT="0.5") as (server, _):
        (tmp_path / "mode").write_text(f"authenticate {how}")
        async with connect(server, headers=bearer(ALICE), ready=False) as socket:
            assert (await socket.wait_closed())[0] == code
        server.close(allowed=r".*the authenticate hook .*")
