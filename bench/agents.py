"""The app that is measured. `model` in a request selects the kind of chat; `rate` and `count` set it up."""

import argparse
import time

import trio

from trio_agentapp import AgentApp

DELTA = "token "

app = AgentApp(app_name="bench")


@app.query()
async def chat(self, msgs, request=None, run=None, **kwargs):  # noqa: ARG001 - a signature with all parameters
    count = request.extra.get("count", 100)
    match request.model:
        case "slow":
            pause = 1 / request.extra.get("rate", 20)
            for _ in range(count):
                await trio.sleep(pause)
                yield DELTA
        case "stamped":
            # Each delta contains the time at which it was made, on the clock that the client also reads.
            pause = 1 / request.extra.get("rate", 20)
            for _ in range(count):
                await trio.sleep(pause)
                yield f"{DELTA}@{time.perf_counter():.6f} "
        case "burst":
            for _ in range(count):
                await trio.lowlevel.checkpoint()
                yield DELTA
        case "burst-never-awaiting":
            for _ in range(count):
                yield DELTA
        case "idle":
            yield DELTA
            await trio.sleep_forever()
        case other:
            raise ValueError(f"no such kind of chat: {other!r}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, default=0)
    app.run(host="127.0.0.1", port=arguments.parse_args().port)
