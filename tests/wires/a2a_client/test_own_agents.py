"""`A2AClient` in handlers, and with agents of this package in processes of their own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.frameworks import a2a_cuts as cuts
from tests.wires.a2a_client.raw_agent import (
    Request,
    begin_events,
    card,
    piece,
    raw_agent,
    send_event,
    send_json,
    status,
    task,
)
from trio_agentapp import AgentApp, Run
from trio_agentapp.errors import AgentTaskFailed, ConfigurationError, ConnectionLost, UnexpectedAnswer
from trio_agentapp.protocol.content import (
    AudioContent,
    Content,
    DataContent,
    FileContent,
    ImageContent,
    RefusalContent,
    TextContent,
    VideoContent,
)
from trio_agentapp.protocol.message import Message
from trio_agentapp.wires import A2AClient
from trio_agentapp.wires.a2a_client import ArtifactUpdate, TaskState, resolving

AGENT = Path(__file__).parents[2] / "e2e" / "agents" / "a2a_agent.py"
VERSIONS = ["1.0", "0.3"]
DEAD = {"url": "http://127.0.0.1:9/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
"""An interface where nothing listens."""


def own_agent(folder: Path, **env: str) -> Any:
    port = cuts.free_port()
    return cuts.agent(folder, [str(AGENT)], port, FOLDER=str(folder), PORT=str(port), **env)


@pytest.mark.parametrize("version", VERSIONS)
async def test_all_that_an_agent_can_do(tmp_path: Path, version: str) -> None:
    async with own_agent(tmp_path, VERSIONS=version) as agent, A2AClient(agent.url) as client:
        assert (client.name, client.protocol_version) == ("Ada", version)
        assert (await client.send("say a b")).text == "a b "
        assert (await client.send("reply yes")).text == "bare yes"
        asked = await client.send("ask")
        assert (asked.state, asked.messages[-1].text) == (TaskState.INPUT_REQUIRED, "Which colour?")
        told = await client.send("red", task_id=asked.task_id, context_id=asked.context_id)
        assert told.state is TaskState.COMPLETED
        login = await client.send("login")
        assert login.state is TaskState.AUTH_REQUIRED
        for text, state in (("fail", TaskState.FAILED), ("reject", TaskState.REJECTED)):
            with pytest.raises(AgentTaskFailed) as caught:
                await client.send(text)
            assert caught.value.task.state is state
        async with client.stream("think") as stream:
            items = [item async for item in stream.items() if item != ""]
        assert items == [Message.reasoning("I ponder."), "done", ("", True)]
        (files,) = (await client.send("files")).messages
        assert [part.type for part in files.content] == ["text", "data", "image", "file", "file"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_sent_has_the_same_type_there(tmp_path: Path, version: str) -> None:
    contents: list[Content] = [
        TextContent("do parts"),
        DataContent({"a": 1}),
        ImageContent("https://example.com/a.png"),
        ImageContent("data:image/png;base64,aGk="),
        AudioContent("aGk=", format="wav"),
        VideoContent("https://example.com/a.mp4"),
        FileContent(file_url="https://example.com/a.pdf", filename="a.pdf"),
        FileContent(file_data="aGk=", filename="b.bin"),
    ]
    async with own_agent(tmp_path, VERSIONS=version) as agent, A2AClient(agent.url) as client:
        reply = await client.send([TextContent("parts"), *contents[1:]])
        (message,) = reply.messages
        assert message.content == [DataContent([type(part).__name__ for part in contents])]
        assert (await client.send([RefusalContent("say no")])).text == "no "


@pytest.mark.parametrize("version", VERSIONS)
async def test_cuts_of_a_long_stream(tmp_path: Path, version: str) -> None:
    everything = "".join(f"{number} " for number in range(300))
    async with own_agent(tmp_path, VERSIONS=version) as agent, cuts.proxied(agent.port) as proxy:
        pieces: list[str] = []
        async with A2AClient(proxy.url) as client, client.stream("steps 300") as stream:
            async for event in stream:
                if isinstance(event, ArtifactUpdate):
                    pieces.append(event.artifact.text)
                    if len(pieces) % 50 == 5:
                        proxy.cut()
        assert "".join(pieces) == everything
        assert proxy.accepted > 5
        assert "cancelled" not in (tmp_path / "marks").read_text()


@pytest.mark.parametrize("in_handler", [True, False], ids=["client-in-handler", "client-in-lifespan"])
async def test_a_stop_of_the_caller_ends_the_callee(tmp_path: Path, in_handler: bool) -> None:
    shared: list[A2AClient] = []
    app = AgentApp()

    async def talk(client: A2AClient) -> AsyncIterator[Any]:
        async with client.stream("wait") as stream:
            async for item in stream.items():
                yield item

    @app.query()
    async def chat() -> AsyncIterator[Any]:
        if not in_handler:
            async for item in talk(shared[0]):
                yield item
            return
        async with A2AClient(agent.url) as client:
            async for item in talk(client):
                yield item

    async with own_agent(tmp_path) as agent, A2AClient(agent.url) as client, app.runtime():
        shared.append(client)
        async with app.stream_query({"input": "hi", "user_id": "u", "session_id": "s"}) as events:
            async for event in events:
                if getattr(event, "text", "") == "waiting ":
                    break
            receipt = await app.stop_chat("u", "s", wait=True)
        assert (receipt.stopped, receipt.cleanup.value) == (True, "done")
        assert (tmp_path / "marks").read_text() == "begin wait\ncancelled wait\nend wait\n"


async def test_a_stop_before_the_agent_has_answered() -> None:
    """The task has no id yet, so the client waits a little for it."""
    asked = trio.Event()

    async def answer(request: Request, stream: trio.SocketStream) -> None:
        if request.rpc == "SendStreamingMessage":
            asked.set()
            await trio.sleep(0.3)
            await begin_events(stream)
            await send_event(stream, {"task": task()})
            await trio.sleep_forever()
        await send_json(stream, {"jsonrpc": "2.0", "id": 1, "result": task("CANCELED")})

    async with raw_agent(answer) as agent, A2AClient(agent.url) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.send, "hi")
        await asked.wait()
        nursery.cancel_scope.cancel()
    assert agent.methods == ["SendStreamingMessage", "CancelTask"]
    assert agent.requests[-1].body["params"] == {"id": "t1"}


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_deadline_of_the_caller_ends_the_callee(tmp_path: Path, version: str) -> None:
    """The agent stops by itself: its caller has sent nothing but the time that it has left."""
    async with own_agent(tmp_path, VERSIONS=version) as agent, A2AClient(agent.url) as client:
        for wrong in (-1, 0, True, "1", 1e300, None):
            assert (await client.send("say a", metadata={"timeout_s": wrong})).text == "a "
        with pytest.raises(AgentTaskFailed) as caught:
            await client.send("wait", metadata={"timeout_s": 0.3}, timeout=None)
        assert (caught.value.task.status.message.metadata or {})["code"] == "deadline_exceeded"


async def test_what_goes_along() -> None:
    async def answer(request: Request, stream: trio.SocketStream) -> None:
        await begin_events(stream)
        await send_event(stream, {"task": task()})
        await send_event(stream, piece("x", append=False))
        await send_event(stream, status("COMPLETED"))

    app = AgentApp()

    @app.query()
    async def chat(run: Run) -> AsyncIterator[Any]:
        async with A2AClient(agent.url, token="t0k3n", extensions=["https://example.com/e"]) as client:
            yield (await client.send("hi", metadata={"k": 1}, context_id="c9")).text

    async with raw_agent(answer) as agent, app.runtime():
        request = {"input": "hi", "user_id": "u", "session_id": "s", "timeout_s": 50, "id": "ab" * 16}
        async with app.stream_query(request) as events:
            async for _ in events:
                pass
    sent = agent.requests[-1]
    assert sent.headers["authorization"] == "Bearer t0k3n"
    assert sent.headers["a2a-version"] == "1.0"
    assert sent.headers["a2a-extensions"] == "https://example.com/e"
    assert 40 < float(sent.headers["x-agent-timeout"]) <= 50
    assert sent.headers["traceparent"].startswith("00-" + "ab" * 16 + "-")
    params = sent.body["params"]
    assert params["metadata"]["k"] == 1
    assert 40 < params["metadata"]["timeout_s"] <= 50
    assert (params["message"]["contextId"], params["message"]["role"]) == ("c9", "ROLE_USER")


@pytest.mark.parametrize("path", ["/process", "/a2a"])
async def test_the_trace_of_a_request_goes_along(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenTelemetry, as the caller has sent it; in both versions of A2A, and by every entry."""
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def answer(request: Request, stream: trio.SocketStream) -> None:
        await send_json(stream, {"jsonrpc": "2.0", "id": 1, "result": {"task": task("COMPLETED")}})

    app = AgentApp()

    @app.query()
    async def chat() -> AsyncIterator[str]:
        async with A2AClient(agent.url) as client:
            await client.send("hi")
        yield "done"

    message = {"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    bodies = {
        "/process": {"input": "hi", "stream": False},
        "/a2a": {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}},
    }
    async with raw_agent(answer, card(capabilities={})) as agent, app.runtime():
        response = await app.test_client().post(path, json=bodies[path], headers={"traceparent": parent})
        assert response.status_code == 200
    assert {request.headers["traceparent"] for request in agent.requests} == {parent}


@attrs.frozen
class Instance:
    url: str
    agent_card: dict[str, Any]
    card_is_whole: bool = True


async def test_agents_by_their_names() -> None:
    async def answer(request: Request, stream: trio.SocketStream) -> None:
        await send_json(stream, {"jsonrpc": "2.0", "id": 1, "result": task("COMPLETED")})

    class Registry:
        async def resolve(self, name: str) -> Any:
            return found.get(name, [])

    class OldRegistry:
        def resolve(self, name: str) -> Any:
            return found[name]

    async with raw_agent(answer) as agent:
        whole = {**card(), "supportedInterfaces": [{**card()["supportedInterfaces"][0], "url": agent.url + "/rpc"}]}
        found: dict[str, Any] = {
            "whole": [Instance("http://127.0.0.1:9", whole)],
            "part": [Instance(agent.url + "/rpc", {"name": "raw"}, card_is_whole=False)],
            "url": agent.url,
            "card": whole,
            "one is dead": [
                Instance("http://127.0.0.1:9/rpc", {}, card_is_whole=False),
                Instance(agent.url, whole),
            ],
            "one with a whole card is dead": [
                *(Instance("http://127.0.0.1:9", {**card(), "supportedInterfaces": [DEAD]}) for _ in range(5)),
                Instance(agent.url, whole),
            ],
            "odd ones": [7, "friday", whole],
        }
        for name in found:
            for registry in (Registry(), OldRegistry()):
                async with A2AClient(name, registry=registry) as client:
                    assert (await client.get("t1")).state is TaskState.COMPLETED
        with pytest.raises(ConnectionLost, match="no live instance of agent 'nobody'"):
            async with A2AClient("nobody", registry=Registry()):
                pass


async def test_a_registry_that_fails_or_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "RESOLVE_WITHIN", 0.05)

    class Registry:
        async def resolve(self, name: str) -> Any:
            if name == "hangs":
                await trio.sleep_forever()
            raise KeyError(name)

    for name, said in (("hangs", "did not answer within"), ("fails", "failed: KeyError: 'fails'")):
        with pytest.raises(ConnectionLost, match=said):
            async with A2AClient(name, registry=Registry()):
                pass


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://127.0.0.1/a\r\nX: y", "http://127.0.0.1:99999/", "http://u:p@127.0.0.1/"]
)
async def test_a_trusted_card_with_a_url_that_cannot_be_used(url: str) -> None:
    with pytest.raises(UnexpectedAnswer, match="no URL of HTTP that can be used"):
        async with A2AClient({**card(), "supportedInterfaces": [{**DEAD, "url": url}]}):
            pass


@pytest.mark.parametrize("streams", [True, False])
async def test_what_cannot_have_arrived_is_not_called_doubtful(streams: bool) -> None:
    served = {**card(capabilities={"streaming": streams}), "supportedInterfaces": [DEAD]}
    async with A2AClient(served) as client:
        with pytest.raises(ConnectionLost, match=r"attempts to connect to .* failed$"):
            await client.send("hi")
    served["supportedInterfaces"] = [{**DEAD, "url": "http://ex\u0430mple.\u2488.com/"}]
    async with A2AClient(served) as client:
        with pytest.raises(UnexpectedAnswer, match="cannot be used"):
            await client.send("hi")


def test_wrong_uses() -> None:
    with pytest.raises(ConfigurationError, match=r"must have a method resolve\(name\)"):
        A2AClient("x", registry=object())
    with pytest.raises(ConfigurationError, match="not an origin"):
        A2AClient("http://127.0.0.1", trusted_origins=["example.com"])
    with pytest.raises(ConfigurationError, match="greater than 0"):
        A2AClient("http://127.0.0.1", silence=0)

    async def not_a_url() -> None:
        async with A2AClient("friday"):
            pass

    with pytest.raises(ConfigurationError, match="needs the URL of an agent"):
        trio.run(not_a_url)
