"""An agent that takes its time for an answer, whatever it is asked."""

import trio

from trio_agentapp import AgentApp, Run

app = AgentApp(app_name="Counter")


@app.query()
async def count(run: Run):
    for number in range(20):
        yield f"{number} "
        await trio.sleep(0.02)


if __name__ == "__main__":
    app.run(host="127.0.0.1")
