from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = "examples/handlers/README.md"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("async_generator", "1 How\n2 many\n3 words\n4 are\n5 in\n6 here?\n"),
        ("coroutine", "6 words"),
        ("sync_generator", "1 How\n2 many\n3 words\n4 are\n5 in\n6 here?\n"),
        ("sync_function", "6 words"),
    ],
)
async def test_every_kind_answers(start, document, kind: str, words: str) -> None:
    (command,) = document(PAGE).commands("app.py")
    (ask,) = document(PAGE).commands("/process")
    example = start(command.replace("async_generator", kind))
    await example.wait_ready()
    stream = example.stream(ask)
    end = await stream.wait_end()
    assert end["status"] == "completed"
    assert end["output"][-1]["content"][0]["text"] == words
    if kind == "coroutine":
        assert end["output"][0]["type"] == "reasoning"
    if kind == "sync_generator":
        await example.wait_printed("is over")
    assert await example.stop() == 0


@pytest.mark.parametrize("kind", ["async_generator", "coroutine", "sync_generator", "sync_function"])
async def test_every_kind_stops(start, document, kind: str) -> None:
    (ask,) = document(PAGE).commands("/process")
    ask = ask.replace("How many", "word " * 200)
    example = start(f"python examples/handlers/app.py {kind}")
    await example.wait_ready()
    stream = example.stream(ask)
    await stream.wait_for('"status":"in_progress"')
    receipt = await example.call(
        "curl 'http://127.0.0.1:8090/stop?wait=1' -H 'Content-Type: application/json' -d '{\"session_id\": \"s1\"}'"
    )
    # The coroutine may have returned before the stop: it works for a fifth of a second.
    if kind != "coroutine" or receipt["accepted"]:
        assert receipt["stopped"]
        assert (await stream.wait_end())["status"] == "canceled"
    assert await example.stop() == 0


def test_without_a_kind_it_says_which_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "examples/handlers/app.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "{async_generator,coroutine,sync_generator,sync_function}" in done.stderr
