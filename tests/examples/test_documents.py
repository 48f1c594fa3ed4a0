"""The commands of the README and of the tutorial work."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
import trio

ROOT = Path(__file__).parents[2]


async def test_the_stop_demonstration_of_the_readme(start, document) -> None:
    page = document("README.md")
    (ask,) = page.commands("/process")
    (stop,) = page.commands("/stop")
    # The command of `make demo`, after it has made the environment.
    assert "@$(BIN)/python examples/friday/app.py" in (ROOT / "Makefile").read_text()
    demo = start(".venv/bin/python examples/friday/app.py")
    await demo.wait_ready()
    story = demo.stream(ask)
    await story.wait_for("robot ")
    receipt = await demo.call(stop)
    shown = page.code("json")[0]
    assert list(receipt) == re.findall(r'"(\w+)":', shown)
    assert receipt["message"] in shown
    assert 200 <= receipt["latency_ms"] < 1000
    end = await story.wait_end()
    assert (
        f'"error":{{"code":"{end["error"]["code"]}","message":"{end["error"]["message"]}"}}' in page.code("text")[1]
    )
    more = demo.stream(ask)
    await more.wait_for("Where was I? Ah, yes. ")
    # Ctrl-C in the middle of a story.
    assert await demo.stop() == 0
    assert (await more.wait_end())["error"] == {"code": "stopped", "message": "shutdown"}
    assert demo.out.count("Friday closes the book") == 2


async def test_the_agent_of_the_readme(start, document, tmp_path: Path) -> None:
    page = document("README.md")
    (code,) = page.code("python")
    (tmp_path / "agent.py").write_text(code)
    agent = start(f"python {tmp_path}/agent.py")
    await agent.wait_ready()
    stream = agent.stream(page.commands("/process")[0])
    await stream.wait_for("Tell ")
    receipt = await agent.call(page.commands("/stop")[0])
    assert (receipt["stopped"], receipt["cleanup"]) == (True, "done")
    await stream.wait_end()
    assert "Tell me a story ".startswith(stream.words)
    assert await agent.stop(signal.SIGTERM) == 0


async def test_the_settings_line_of_the_readme(start, document, tmp_path: Path) -> None:
    page = document("README.md")
    (line,) = page.commands("AGENTAPP_")
    settings = dict(re.findall(r"(AGENTAPP_\w+)=(\S+)", line))
    (tmp_path / "agent.py").write_text(page.code("python")[0] + "\n")
    wrong = start(f"python {tmp_path}/agent.py", **settings | {"AGENTAPP_DRAIN_TIMEOUT": "soon"})
    assert wrong.process.wait(10) == 1
    assert "AGENTAPP_DRAIN_TIMEOUT must be a number, not 'soon'" in wrong.err
    right = start(f"python {tmp_path}/agent.py", **settings)
    await right.wait_ready()
    assert await right.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_agent_of_the_readme_under_hypercorn(
    start, document, tmp_path: Path, number: signal.Signals
) -> None:
    page = document("README.md")
    assert "hypercorn -k trio agent:app" in (ROOT / "README.md").read_text()
    (tmp_path / "agent.py").write_text(page.code("python")[0])
    agent = start(
        "python -m hypercorn -k trio agent:app --bind 127.0.0.1:0", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}"
    )
    await agent.wait_ready()
    stream = agent.stream(page.commands("/process")[0])
    assert (await stream.wait_end())["status"] == "completed"
    await agent.stop(number)


async def test_the_tutorial(start, document, tmp_path: Path, monkeypatch, capsys) -> None:
    page = document("docs/tutorials/first-agent.md")
    code, client = page.code("python")
    (tmp_path / "agent.py").write_text(code)
    assert page.commands("agent.py") == [".venv/bin/python agent.py"]
    counter = start(f".venv/bin/python {tmp_path}/agent.py")
    await counter.wait_ready()
    assert counter.err.startswith("Counter is ready on ")
    assert "(Ctrl-C stops it; node " in counter.err
    (ask,) = page.commands("/process")
    (stop,) = page.commands("/stop")

    first = counter.stream(ask)
    await first.wait_for('"text":"4 "')
    receipt = await counter.call(stop)
    assert list(receipt) == re.findall(r'"(\w+)":', page.code("json")[0])
    assert (receipt["stopped"], receipt["cleanup"]) == (True, "done")
    assert (await first.wait_end())["status"] == "canceled"
    assert first.words.startswith("1 2 3 4 ")

    # Steps 4 and 5: the count continues, as the client of the tutorial shows.
    namespace: dict = {}
    exec(client, namespace)
    await trio.to_thread.run_sync(namespace["listen"], counter.url, "Count, please")
    following = capsys.readouterr().out.split()
    # A stop during the sending of a number may repeat that number.
    assert int(following[0]) in (len(first.words.split()), len(first.words.split()) + 1)
    assert following[-1] == "20"
    assert await counter.stop() == 0
