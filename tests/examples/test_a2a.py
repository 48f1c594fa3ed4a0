from __future__ import annotations

PAGE = "examples/a2a/README.md"


async def test_a_stop_of_the_caller_ends_the_callee(start, document) -> None:
    page = document(PAGE)
    researcher = start("python examples/a2a/researcher.py")
    await researcher.wait_ready()
    editor = start("python examples/a2a/app.py", RESEARCHER=researcher.url)
    await editor.wait_ready()
    stream = editor.stream(page.commands("/process")[0])
    await stream.wait_for("Fact 3 about bees. ")
    assert stream.words.startswith("A report about bees. Fact 1 about bees. Fact 2 about bees. ")
    assert "cancelled" not in researcher.out
    receipt = await editor.call(page.commands("/stop")[0])
    assert (receipt["accepted"], receipt["stopped"], receipt["state"]) == (True, True, "STOPPED")
    assert researcher.out == "The research was cancelled.\n"
    assert (await stream.wait_end())["status"] == "canceled"
    for agent in (editor, researcher):
        assert await agent.stop() == 0


def test_the_page_starts_both(document) -> None:
    lines = document(PAGE).commands(".venv/bin/python")
    assert [line.split()[-1] for line in lines] == ["examples/a2a/researcher.py", "examples/a2a/app.py"]
