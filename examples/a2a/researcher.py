"""The agent that is called: collects facts one by one, and says in its log when it is cancelled.

PORT=8091 python examples/a2a/researcher.py
"""

import trio

from trio_agentapp import AgentApp, Message

app = AgentApp(app_name="Researcher", app_description="Collects facts about a subject.")


@app.query()
async def collect(msgs: list[Message]):
    subject = msgs[-1].text
    try:
        for number in range(1, 101):
            yield f"Fact {number} about {subject}. "
            await trio.sleep(0.2)
    except trio.Cancelled:
        print("The research was cancelled.", flush=True)
        raise


if __name__ == "__main__":
    app.run()
