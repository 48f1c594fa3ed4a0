"""Calls that block the loop, each on a line that the test looks for, and what does not block it."""

import time

import trio

from trio_agentapp import AgentApp

app = AgentApp()


def compute():
    time.sleep(1.8)  # blocks: in a handler


@app.query()
async def chat(msgs, request):
    compute()
    yield "done"


@app.endpoint("/sleep")
async def sleep():
    time.sleep(1.8)  # noqa: ASYNC251  # blocks: in an endpoint


@app.endpoint("/plain")
def plain():
    time.sleep(1.8)


@app.endpoint("/thread")
async def thread():
    await trio.to_thread.run_sync(time.sleep, 1.8)


@app.get("/waits")
async def waits() -> str:
    await trio.sleep(1.8)
    return "waited"


if __name__ == "__main__":
    app.run()
