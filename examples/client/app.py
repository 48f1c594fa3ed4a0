"""Send a question to an agent, show the answer as it arrives, and stop the run on Ctrl-C.

python examples/client/app.py "Tell me a story"
"""

import os
import signal
import sys

import trio

from trio_agentapp import AgentClient, CancelAfter
from trio_agentapp.client import EventStream


async def ask(words: str) -> None:
    urls = os.environ.get("AGENT_URL", "http://127.0.0.1:8090").split(",")
    token = os.environ.get("AGENT_TOKEN")
    # After a broken connection the run continues for half a minute, so that the client can resume.
    async with AgentClient(urls, token=token, on_disconnect=CancelAfter(30)) as client:
        async with client.run(words, session_id="s1", user_id="u1") as events, trio.open_nursery() as nursery:
            nursery.start_soon(stop_on_ctrl_c, events)
            async for event in events:
                if event["object"] == "content" and event["type"] == "text" and event["delta"]:
                    print(event["text"], end="", flush=True)
            nursery.cancel_scope.cancel()
    assert events.response is not None
    print(f"\n[{events.response['status']}]")


async def stop_on_ctrl_c(events: EventStream) -> None:
    with trio.open_signal_receiver(signal.SIGINT) as interrupts:
        async for _ in interrupts:
            # Shielded, because the stream often ends before the receipt of the stop has arrived.
            with trio.move_on_after(60, shield=True):
                receipt = await events.stop(wait=True)
                print(f"\n[stopped in {receipt.latency_ms:.0f} ms, cleanup {receipt.cleanup}]", end="")


if __name__ == "__main__":
    trio.run(ask, " ".join(sys.argv[1:]) or "Tell me a story")
