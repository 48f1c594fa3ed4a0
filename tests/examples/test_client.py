from __future__ import annotations

import os
import signal

PAGE = "examples/client/README.md"


async def test_ctrl_c_stops_the_answer_and_not_the_client(start, document) -> None:
    serve, ask = document(PAGE).commands(".venv/bin/python")
    friday = start(serve)
    await friday.wait_ready()
    client = start(ask.removesuffix(' "Tell me a story"'), AGENT_URL=friday.url)
    await client.wait_printed("Friday was a small robot")
    os.kill(client.process.pid, signal.SIGINT)
    await client.wait_printed("[canceled]")
    assert client.process.wait(10) == 0
    assert "cleanup done]" in client.out
    assert client.err == ""
    assert await friday.stop() == 0
