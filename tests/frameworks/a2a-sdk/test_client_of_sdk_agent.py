"""`A2AClient` with an agent of the Python SDK of A2A: every binding and version, cuts, cancellation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.frameworks import a2a_cuts as cuts
from trio_agentapp import AgentApp
from trio_agentapp.errors import A2AError, AgentTaskFailed, ConfigurationError
from trio_agentapp.protocol.content import DataContent, FileContent, ImageContent, TextContent
from trio_agentapp.protocol.message import Message
from trio_agentapp.wires import A2AClient
from trio_agentapp.wires.a2a_client import ArtifactUpdate, MessageReply, StatusUpdate, TaskSnapshot, TaskState

pytest.importorskip("a2a", reason="it has an environment of its own: make test-frameworks")

WAYS = ["JSONRPC 1.0", "HTTP+JSON 1.0", "JSONRPC 0.3", "JSONRPC 1.0 no-streams", "JSONRPC 0.3 no-streams"]
STREAMING = WAYS[:3]


@asynccontextmanager
async def sdk_agent(folder: Path, way: str, public: str = "") -> AsyncIterator[cuts.Agent]:
    port = cuts.free_port()
    interface, _, options = way.partition(" no-")
    command = [
        str(Path(__file__).parent / "sdk_agent.py"),
        str(port),
        public or f"http://127.0.0.1:{port}",
        interface,
    ]
    async with cuts.agent(folder, command + ([f"no-{options}"] if options else []), port) as started:
        yield started


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_send(tmp_path: Path, way: str) -> None:
    async with sdk_agent(tmp_path, way) as agent, A2AClient(agent.url) as client:
        assert client.protocol_version == way.split()[1]
        assert client.name == "sdk"
        reply = await client.send("hello")
        assert (reply.state, reply.text) == (TaskState.COMPLETED, "hello")
        assert [type(message) for message in reply.messages] == [Message]
        task = await client.get(reply.task_id or "")
        assert (task.state, task.text, task.context_id) == (TaskState.COMPLETED, "hello", reply.context_id)
        bare = await client.send("bare")
        assert (bare.task, bare.text) == (None, "just a message")


async def test_all_kinds_of_parts(tmp_path: Path, way: str) -> None:
    async with sdk_agent(tmp_path, way) as agent, A2AClient(agent.url) as client:
        reply = await client.send("parts")
        (message,) = reply.messages
        assert message.content[0] == TextContent("words")
        assert message.content[1] == DataContent({"n": 1})
        assert isinstance(message.content[2], FileContent)
        assert message.content[2].file_url == "https://example.com/a.pdf"
        assert message.content[3] == ImageContent("data:image/png;base64,iVBORw==")


async def test_a_conversation_of_several_turns(tmp_path: Path, way: str) -> None:
    async with sdk_agent(tmp_path, way) as agent, A2AClient(agent.url) as client:
        asked = await client.send("ask")
        assert (asked.state, asked.text) == (TaskState.INPUT_REQUIRED, "Which city?")
        told = await client.send("Paris", task_id=asked.task_id, context_id=asked.context_id)
        assert (told.state, told.task_id) == (TaskState.COMPLETED, asked.task_id)
        assert told.text == "sunny in Paris"


async def test_a_task_that_fails(tmp_path: Path, way: str) -> None:
    async with sdk_agent(tmp_path, way) as agent, A2AClient(agent.url) as client:
        with pytest.raises(AgentTaskFailed, match="of agent 'sdk' ended as failed: it broke") as caught:
            await client.send("fail")
        assert caught.value.task.state is TaskState.FAILED


async def test_errors_have_their_codes(tmp_path: Path, way: str) -> None:
    async with sdk_agent(tmp_path, way) as agent, A2AClient(agent.url) as client:
        with pytest.raises(A2AError) as caught:
            await client.get("no-such-task")
        assert (caught.value.code, caught.value.reason) == (-32001, "TASK_NOT_FOUND")
        reply = await client.send("hello")
        with pytest.raises(A2AError) as caught:
            await client.cancel(reply.task_id or "")
        assert caught.value.code == -32002


async def test_the_list(tmp_path: Path, way: str) -> None:
    async with sdk_agent(tmp_path, way) as agent, A2AClient(agent.url) as client:
        reply = await client.send("hello")
        if client.protocol_version == "0.3":
            with pytest.raises(A2AError, match="no operation to list"):
                await client.list()
            return
        await client.send("another")
        tasks, token = await client.list(page_size=1)
        assert len(tasks) == 1
        assert token
        (task,), token = await client.list(context_id=reply.context_id, state=TaskState.COMPLETED)
        assert (task.id, token) == (reply.task_id, None)


@pytest.mark.parametrize("way", STREAMING)
async def test_a_stream(tmp_path: Path, way: str) -> None:
    async with sdk_agent(tmp_path, way) as agent, A2AClient(agent.url) as client:
        async with client.stream("count 5") as stream:
            events = [event async for event in stream]
            assert stream.state is TaskState.COMPLETED
        assert isinstance(events[0], TaskSnapshot)
        assert isinstance(events[-1], StatusUpdate)
        assert [event.artifact.text for event in events if isinstance(event, ArtifactUpdate)] == [
            f"{number} " for number in range(1, 6)
        ]
        async with client.stream("count 3") as stream:
            items = [item async for item in stream.items()]
        assert items == [Message.reasoning("thinking"), "1 ", "2 ", "3 "]
        async with client.stream("bare") as stream:
            assert [type(event) for event in [event async for event in stream]] == [MessageReply]


async def test_a_cut_loses_and_doubles_nothing(tmp_path: Path, way: str) -> None:
    port = cuts.free_port()
    async with cuts.proxied(port) as proxy:
        command = [str(Path(__file__).parent / "sdk_agent.py"), str(port), proxy.url]
        interface, _, options = way.partition(" no-")
        command += [interface] + ([f"no-{options}"] if options else [])
        async with cuts.agent(tmp_path, command, port), A2AClient(proxy.url) as client:
            pieces: list[str] = []
            with trio.fail_after(60):
                async with client.stream("count 120") as stream:
                    async for event in stream:
                        if isinstance(event, ArtifactUpdate):
                            pieces.append(event.artifact.text)
                            assert event.append or len(pieces) == 1
                            if len(pieces) % 20 == 5:
                                proxy.cut()
            assert "".join(pieces) == "".join(f"{number} " for number in range(1, 121))
            assert stream.task is not None
            assert stream.task.text == "".join(pieces)
            if way in STREAMING:
                assert proxy.accepted > 4


async def test_leaving_a_stream_cancels_its_task(tmp_path: Path, way: str) -> None:
    async with sdk_agent(tmp_path, way) as agent, A2AClient(agent.url) as client:
        async with client.stream("count 5000") as stream:
            async for event in stream:
                if isinstance(event, ArtifactUpdate):
                    break
        assert "canceled" in agent.log
        assert (await client.get(stream.task_id or "")).state is TaskState.CANCELED


@pytest.mark.parametrize("way", STREAMING)
async def test_a_task_that_is_kept_is_followed_again(tmp_path: Path, way: str) -> None:
    async with sdk_agent(tmp_path, way) as agent, A2AClient(agent.url) as client:
        async with client.stream("count 100", keep=True) as stream:
            async for event in stream:
                if isinstance(event, ArtifactUpdate):
                    break
        assert stream.task_id is not None
        async with client.subscribe(stream.task_id) as again:
            reply = await again.wait()
        assert reply.text == "".join(f"{number} " for number in range(1, 101))
        assert "canceled" not in agent.log


async def test_a_stop_of_the_caller_ends_the_task(tmp_path: Path, way: str) -> None:
    app = AgentApp()

    @app.query()
    async def chat(run: Any) -> AsyncIterator[Any]:
        async with A2AClient(agent.url) as client:
            async with client.stream("count 5000") as stream:
                async for item in stream.items():
                    yield item

    async with sdk_agent(tmp_path, way) as agent, app.runtime():
        asked = {"input": "hi", "user_id": "u", "session_id": "s", "timeout_s": 100}
        async with app.stream_query(asked) as events:
            async for event in events:
                if getattr(event, "text", None) and "1 " in event.text:
                    break
            receipt = await app.stop_chat("u", "s", wait=True)
        assert receipt.stopped
        assert "canceled" in agent.log
        assert "x-agent-timeout" in agent.log
        assert "traceparent" in agent.log
        assert "timeout_s" in agent.log


async def test_a_card_that_points_elsewhere(tmp_path: Path) -> None:
    async with sdk_agent(tmp_path, "JSONRPC 1.0", "http://127.0.0.1:9") as agent:
        with pytest.raises(ConfigurationError, match="at another origin than the card"):
            async with A2AClient(agent.url):
                pass
        async with A2AClient(agent.url, trusted_origins=["http://127.0.0.1:9"]) as client:
            assert client.url == "http://127.0.0.1:9/rpc"
