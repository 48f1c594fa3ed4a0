"""AgentClient, as a program that is not a server uses it."""

from typing import Any

import trio

from trio_agentapp import AgentClient, AgentRequest, CancelAfter, Message, RunState, StopReceipt, errors
from trio_agentapp.client import EventStream, Retries


async def main() -> str:
    async with AgentClient(
        ["http://a:8090", "http://b:8090"],
        transport="websocket",
        token="secret",
        on_disconnect=CancelAfter(30),
        retries=Retries(attempts=20, seconds=120),
    ) as client:
        async with client.run("Hello", session_id="s1") as events:
            async for event in events:
                kind: str = event["object"]
                assert kind
        async with client.run({"input": "Hello"}) as events:
            end: dict[str, Any] = await events.wait()
        async with client.run(AgentRequest(input=[Message(role="user", content="Hello")])) as events:
            await events.send_input("More")
            receipt: StopReceipt = await events.stop(wait=True)
        async with client.attach(events.run_id, starting_after=3) as again:
            stream: EventStream = again
        if receipt.state is RunState.STOPPED:
            assert end["status"] in stream.text
        record: dict[str, Any] = await client.status(events.run_id)
        await client.cancel(record["run_id"], wait=True)
        try:
            await client.stop("s1", "u1")
        except errors.SessionBusy as busy:
            return busy.active_run_id
        except errors.ConnectionLost:
            return "no server could be reached"
        return events.text


trio.run(main)


# What must not pass.


async def wrong_uses() -> None:
    AgentClient()  # type: ignore[call-arg]
    AgentClient("http://a", transport="http")  # type: ignore[arg-type]
    AgentClient("http://a", retries=3)  # type: ignore[arg-type]
    client = AgentClient("http://a")
    with client:  # type: ignore[attr-defined]
        pass
    async with client.run() as events:  # type: ignore[call-arg]
        pass
    async with client.run("Hello") as events:
        for event in events:  # type: ignore[attr-defined]
            assert event
        wrong: str = await events.stop()  # type: ignore[assignment]
        events.text = wrong  # type: ignore[misc]
    await client.cancel(5)  # type: ignore[arg-type]
    await client.attach("run-of-mine", starting_after=1)  # type: ignore[misc]
