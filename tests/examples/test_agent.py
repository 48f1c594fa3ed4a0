"""The agent without a framework works as its page says."""

from __future__ import annotations

from trio_agentapp.testing import model_server

PAGE = "examples/agent/README.md"


async def test_an_answer_and_a_stop(start, document) -> None:
    page = document(PAGE)
    (ask,) = page.commands("/process")
    (stop,) = page.commands("/stop")
    (command,) = page.commands("app.py")
    planner = start(command)
    await planner.wait_ready()

    end = await planner.stream(ask).wait_end()
    assert end["status"] == "completed"
    outputs = [m["content"][0]["data"]["output"] for m in end["output"] if m["type"] == "plugin_call_output"]
    assert outputs == ["Mild, some rain.", "Trains leave every hour.", "The Patient Heron has a room. "]
    assert end["output"][-1]["content"][0]["text"].split() == " ".join(outputs).split()
    assert planner.out == "trains: ended\n"

    stream = planner.stream(ask)
    await stream.wait_for("ask_guide")
    receipt = await planner.call(stop)
    assert receipt["stopped"]
    assert (await stream.wait_end())["status"] == "canceled"
    assert planner.out == "trains: ended\n" * 2
    assert (await planner.stream(ask).wait_end())["status"] == "completed"
    assert await planner.stop() == 0


async def test_a_real_model(start, document) -> None:
    page = document(PAGE)
    async with model_server(["Stay at ", "home."]) as server:
        planner = start(
            page.commands("app.py")[0], OPENAI_API_KEY="k", OPENAI_BASE_URL=server.url, OPENAI_MODEL="tiny"
        )
        await planner.wait_ready()
        end = await planner.stream(page.commands("/process")[0]).wait_end()
        assert end["output"][-1]["content"][0]["text"] == "Stay at home."
        assert await planner.stop() == 0
    assert server.requests[0]["model"] == "tiny"
    assert [each["function"]["name"] for each in server.requests[0]["tools"]] == ["weather", "trains", "ask_guide"]
