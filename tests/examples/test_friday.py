"""The demo works as its README says."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
STORY = re.findall(r"\S+", (ROOT / "examples/friday/story.txt").read_text())


async def test_the_stop_demonstration(start, document) -> None:
    page = document("examples/friday/README.md")
    (command,) = page.commands("app.py")
    ask, hello = page.commands("/process")
    (stop,) = page.commands("/stop")
    friday = start(command)
    await friday.wait_ready()

    story = friday.stream(ask)
    await story.wait_for("good ")
    receipt = await friday.call(stop)
    assert receipt["status"] == "success"
    assert (receipt["accepted"], receipt["stopped"], receipt["state"]) == (True, True, "STOPPED")
    assert receipt["cleanup"] == "done"

    end = await story.wait_end()
    assert (end["status"], end["error"]["code"]) == ("canceled", "stopped")
    assert [event["sequence_number"] for event in story.events] == list(range(len(story.events)))
    assert [message["type"] for message in end["output"]] == [
        "reasoning",
        "function_call",
        "function_call_output",
        "message",
    ]
    assert end["output"][2]["content"][0]["data"]["output"]["sky"] == "clear"
    assert end["output"][3]["content"][0]["text"] == story.words
    told = story.words.split()
    assert told == STORY[: len(told)]
    await friday.wait_printed(f"Friday closes the book of session s1 after {len(told)} words.")

    more = friday.stream(ask)
    await more.wait_for(STORY[len(told) + 2])
    await friday.call(stop)
    await more.wait_end()
    assert more.words.startswith("Where was I? Ah, yes. " + " ".join(STORY[len(told) : len(told) + 3]))

    greeting = friday.stream(hello)
    assert (await greeting.wait_end())["status"] == "completed"
    assert greeting.words == "Hello! I am Friday. Ask me for a story."

    assert await friday.stop() == 0


async def test_the_lines_it_prints_work(start, document) -> None:
    friday = start("python examples/friday/app.py")
    await friday.wait_ready()
    printed = [line.strip() for line in re.split(r"\n\n", friday.out) if line.strip().startswith("curl")]
    ask, stop = (command.replace(":0/", ":8090/") for command in printed)
    story = friday.stream(ask)
    await story.wait_for("small ")
    assert (await friday.call(stop))["stopped"]
    assert (await story.wait_end())["status"] == "canceled"
    assert f"({round(len(STORY) * 0.1)} seconds)" in friday.out
    assert await friday.stop() == 0


async def test_a_stop_during_the_tool_call_leaves_a_valid_conversation(start, document) -> None:
    page = document("examples/friday/README.md")
    friday = start("python examples/friday/app.py")
    await friday.wait_ready()
    story = friday.stream(page.commands("/process")[0])
    await story.wait_for('"type":"function_call"')
    await friday.call(page.commands("/stop")[0])
    end = await story.wait_end()
    assert end["output"][-1]["content"][0]["data"]["output"] == "interrupted"
    await friday.wait_printed("after 0 words")


async def test_a_busy_port_is_told_clearly(start) -> None:
    first = start("python examples/friday/app.py")
    await first.wait_ready()
    port = first.url.rpartition(":")[2]
    second = start("python examples/friday/app.py", PORT=port)
    assert second.process.wait(10) == 1
    assert f"Cannot listen on 127.0.0.1:{port}: the port is in use" in second.err
    assert "Traceback" not in second.err
    assert "curl" not in second.out
