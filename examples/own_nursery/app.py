"""A handler with its own nursery: three tools at once, and one stop ends all of them.

`python examples/own_nursery/app.py`
"""

from collections.abc import AsyncIterator

import trio

from trio_agentapp import AgentApp, Message, Run

TOOLS = {
    "weather": (1.0, "mild, some rain"),
    "trains": (2.0, "every hour, from platform 4"),
    "hotels": (4.0, "the Patient Heron has a room"),
}
"""The result of each tool, and the seconds it takes."""

app = AgentApp(app_name="Planner", app_description="Plans a trip with three tools at once")


@app.query()
async def plan(msgs: list[Message], run: Run) -> AsyncIterator[str]:
    place = msgs[-1].text
    yield f"Let me see what I can find out about {place}. "

    findings: dict[str, str] = {}
    async with trio.open_nursery() as tools:
        for name in TOOLS:
            tools.start_soon(call_tool, run, name, place, findings)
    # Here every tool has ended, because the block cannot be left before.

    yield "All is ready: " + "; ".join(findings[name] for name in TOOLS) + "."


async def call_tool(run: Run, name: str, place: str, findings: dict[str, str]) -> None:
    """Call one tool, and stream the call and its output at once."""
    seconds, finding = TOOLS[name]
    call = Message.tool_call(name, {"place": place})
    await run.emit(call)
    try:
        await trio.sleep(seconds)  # a real tool would ask another server
        findings[name] = finding
        await run.emit(Message.tool_output(call.content[0].data["call_id"], finding))
    except trio.Cancelled:
        print(f"{name}: stopped", flush=True)
        raise


if __name__ == "__main__":
    app.run()
