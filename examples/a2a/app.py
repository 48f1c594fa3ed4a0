"""The agent that calls: passes a question on to another agent by A2A, and streams its answer.

RESEARCHER=http://127.0.0.1:8091 python examples/a2a/app.py
"""

import os

from trio_agentapp import AgentApp, Message
from trio_agentapp.wires import A2AClient

RESEARCHER = os.environ.get("RESEARCHER", "http://127.0.0.1:8091")

app = AgentApp(app_name="Editor", app_description="Writes reports with the help of a researcher.")


@app.query()
async def report(msgs: list[Message]):
    yield f"A report about {msgs[-1].text}. "
    async with A2AClient(RESEARCHER) as researcher:
        async with researcher.stream(msgs[-1]) as stream:
            async for item in stream.items():
                yield item


if __name__ == "__main__":
    app.run()
