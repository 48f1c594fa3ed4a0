"""Two nodes behind nginx are restarted one after the other, while clients stream and resume."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import trio

from trio_agentapp.testing.redis_server import RedisServer

from ..e2e.conftest import Start, start
from ..e2e.harness import Server, free_port, fresh, say, terminal
from ..e2e.test_client_nodes import TIMINGS
from .fronts import SITE, running

__all__ = ["start"]

CLIENTS, CHATS, TIMES, PERIOD = 200, 3, 6, 0.9
ANY_WARNING = '.*"level":"warning".*'

pytestmark = [
    # httpx leaves the generators of a response open that is closed in its middle.
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Reader:
    """One client: it starts a chat, leaves in the middle of it, and resumes until its last event."""

    def __init__(self, http: httpx.AsyncClient, random: Random) -> None:
        self.http = http
        self.random = random
        self.sessions: list[str] = []
        self.resumed = 0

    async def chat(self) -> None:
        session = fresh()
        self.sessions.append(session)
        body = {"input": say(), "do": "recite", "times": TIMES, "period": PERIOD, "session_id": session}
        request = self.http.build_request("POST", "/process", json={**body, "on_disconnect": "continue"})
        events: list[dict[str, Any]] = []
        leave_after = self.random.randrange(4, TIMES + 2)
        while not events or not terminal(events[-1]):
            response = await self.http.send(request, stream=True)
            try:
                # Of resumed streams, too: whatever node gets the request.
                assert response.status_code == 200, await response.aread()
                run_id = response.headers["x-run-id"]
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        events.append(json.loads(line[6:]))
                        if len(events) == leave_after:
                            break
            except httpx.RemoteProtocolError:
                # The node through which it read a run of the other one has ended.
                pass
            finally:
                await response.aclose()
            self.resumed += 1
            headers = {"Last-Event-ID": str(events[-1]["sequence_number"])} if events else {}
            request = self.http.build_request("GET", f"/runs/{run_id}/stream", headers=headers)
        assert [event["sequence_number"] for event in events] == list(range(len(events))), session
        assert events[-1]["status"] == "completed", events[-1]
        said = "".join(event["text"] for event in events if event["object"] == "content" and event["delta"])
        assert said == "".join(f"{session}/{run_id}/{number} " for number in range(TIMES))


async def test_nothing_is_lost_doubled_or_refused(start: Start, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder: Path = tmp_path_factory.mktemp("nginx")
    async with RedisServer("valkey") as redis:

        def node(port: int) -> Server:
            options: dict[str, Any] = {
                "event_store": "redis",
                "timings": TIMINGS,
                "drain_timeout": 60,
                "root_path": "/agents",
                "trusted_proxies": ["127.0.0.1"],
                "allowed_hosts": [SITE],
            }
            return start(interrupt_redis_url=redis.url, env={"PORT": str(port)}, ready=False, **options)

        nodes = [node(free_port()), node(free_port())]
        for each in nodes:
            each.wait_ready()
        ended: list[Server] = []
        async with running("nginx", folder, *(node.port for node in nodes)) as front:
            async with front.client() as http:
                readers = [Reader(http, Random(number)) for number in range(CLIENTS)]
                began = trio.Event()

                async def read(number: int, reader: Reader) -> None:
                    await trio.sleep(2 * number / CLIENTS)
                    if number == CLIENTS - 1:
                        began.set()
                    for _ in range(CHATS):
                        await reader.chat()

                with trio.fail_after(120):
                    async with trio.open_nursery() as nursery:
                        for number, reader in enumerate(readers):
                            nursery.start_soon(read, number, reader)
                        await began.wait()
                        for place, leaving in enumerate(nodes):
                            leaving.send_signal()
                            assert await leaving.wait_exit(60) == 0, leaving.log
                            ended.append(leaving)
                            nodes[place] = node(leaving.port)
                            nodes[place].wait_ready()
    begins = [mark for each in (*ended, *nodes) for mark in each.marks if mark.startswith("begin ")]
    sessions = [session for reader in readers for session in reader.sessions]
    assert sorted(begins) == sorted(f"begin {session}" for session in sessions)
    assert sum(reader.resumed for reader in readers) >= len(sessions)
    # Both nodes have served before their restarts, and the first one after it, when the last chats begin.
    assert all(any(mark.startswith("begin ") for mark in each.marks) for each in (*ended, nodes[0]))
    for each in ended:
        each.assert_clean(allowed=ANY_WARNING)
