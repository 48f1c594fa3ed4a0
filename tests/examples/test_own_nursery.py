from __future__ import annotations

PAGE = "examples/own_nursery/README.md"


async def test_results_are_streamed_when_they_come(start, document) -> None:
    page = document(PAGE)
    example = start(page.commands("app.py")[0])
    await example.wait_ready()
    stream = example.stream(page.commands("/process")[0])
    await stream.wait_for("every hour")
    assert "has a room" not in stream.text
    end = await stream.wait_end()
    assert end["status"] == "completed"
    outputs = [message["content"][0]["data"]["output"] for message in stream.messages("function_call_output")]
    assert outputs == ["mild, some rain", "every hour, from platform 4", "the Patient Heron has a room"]
    assert len(stream.messages("function_call")) == 3
    assert end["output"][-1]["content"][0]["text"].startswith("All is ready: mild")
    assert await example.stop() == 0


async def test_one_stop_ends_all_tools(start, document) -> None:
    page = document(PAGE)
    example = start(page.commands("app.py")[0])
    await example.wait_ready()
    stream = example.stream(page.commands("/process")[0])
    await stream.wait_for("mild")
    receipt = await example.call(page.commands("/stop")[0])
    assert (receipt["stopped"], receipt["state"]) == (True, "STOPPED")
    # The receipt comes when nothing of the run runs any more, so everything has been printed.
    assert sorted(line for line in example.out.splitlines() if "stopped" in line) == [
        "hotels: stopped",
        "trains: stopped",
    ]
    end = await stream.wait_end()
    outputs = [message["content"][0]["data"]["output"] for message in stream.messages("function_call_output")]
    assert end["status"] == "canceled"
    assert outputs == ["mild, some rain", "interrupted", "interrupted"]
    assert await example.stop() == 0
