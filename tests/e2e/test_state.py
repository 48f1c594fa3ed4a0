"""What a session remembers when its process is killed, and another one takes over (the page Keep state)."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from trio_agentapp.testing.redis_server import RedisServer

from .conftest import Start
from .harness import Server, fresh, say


async def chat(server: Server, do: str, session: str) -> str:
    body = {"input": say(), "do": do, "session_id": session, "user_id": "ann", "stream": False}
    answer = await server.call("POST", "/process", body)
    assert answer.status == 200, answer
    text: str = answer.json()["output"][0]["content"][0]["text"]
    return text


async def history(server: Server, session: str) -> list[tuple[Any, Any]]:
    messages = (await server.get(f"/sessions/{session}/history?user_id=ann"))["messages"]
    return [(message["role"], message["content"][0]["text"]) for message in messages]


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_session_outlives_its_process(start: Start, tmp_path: Path, kind: str) -> None:
    async with RedisServer() as redis:
        url = f"sqlite:///{tmp_path}/states.db" if kind == "sqlite" else redis.url
        server = start(state_url=url)
        session, stopped, cut = fresh(), fresh(), fresh()
        assert [await chat(server, "remember", session) for _ in range(2)] == ["1", "2"]
        async with server.chat("endless", session_id=stopped, user_id="ann") as stream:
            await stream.client.head()
            await stream.client.data()
            await server.stop(wait=True, session_id=stopped, user_id="ann")
        said = await history(server, stopped)
        assert [role for role, _ in said] == ["user", "assistant"]
        async with server.chat("endless", session_id=cut, user_id="ann") as stream:
            await stream.client.head()
            await stream.client.data()
            server.send_signal(signal.SIGKILL)
            await server.wait_exit()
        again = start(state_url=url)
        assert await chat(again, "remember", session) == "3"
        assert await history(again, session) == [
            (role, text) for turn in "123" for role, text in (("user", "hi"), ("assistant", turn))
        ]
        assert await history(again, stopped) == said
        # Nothing of a turn that was killed is there, and the session goes on.
        assert await history(again, cut) == []
        assert await chat(again, "remember", cut) == "1"
        again.close()
