"""The commands in the README of the endpoints example work."""

from __future__ import annotations

import trio

PAGE = "examples/endpoints/README.md"


async def test_the_librarian(start, document) -> None:
    page = document(PAGE)
    example = start(page.commands("app.py")[0])
    await example.wait_ready()
    assert await example.call(page.commands("/hello")[0]) == {"msg": "Hello world"}
    numbers = example.stream(page.commands("/stream_numbers")[0])
    await numbers.wait_end()
    assert numbers.events == [f"number: {i}\n" for i in range(5)]
    keep, wrong = page.commands("/notes' -H") + page.commands("/notes -H")
    if "robot" not in keep:
        keep, wrong = wrong, keep
    assert (await example.call(keep))["tags"] == ["story"]
    refused = await example.call(wrong)
    assert refused["errors"] == [{"loc": "$.text", "msg": "must be a string, not a number"}]
    (read,) = page.commands("/read")
    whole = example.stream(read)
    await whole.wait_end()
    assert " ".join(whole.events) == "A ROBOT LOOKS AT THE STARS"
    await example.wait_printed("read 6 words of robot")
    cut = example.stream(read)
    await cut.wait_for("ROBOT")
    cut.process.kill()
    with trio.fail_after(10):
        while example.out.count(" words of robot") < 2:
            await trio.sleep(0.02)
    assert await example.stop() == 0
