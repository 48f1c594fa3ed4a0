"""SmolLM, a small language model that runs in this process: no network, no GPU, no API key.

`python examples/smol/app.py` starts it; HOST and PORT in the environment choose another address. The model is
small: it writes fluently, and is often wrong.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from model import Model, answer, find_weights

from trio_agentapp import AgentApp, AgentRequest, Message

WEIGHTS = find_weights()

HINT = """
Open http://{address}/chat in a browser, and talk to SmolLM there. It is loading now, which takes some seconds.

Or in a terminal:

  curl -N http://{address}/process -H 'Content-Type: application/json' \\
    -d '{{"session_id": "s1", "user_id": "u1", "input": [{{"role": "user", "content": "What is a comet?"}}]}}'
"""


@asynccontextmanager
async def lifespan(app: AgentApp) -> AsyncIterator[None]:
    address = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8090')}"
    print(HINT.format(address=address), flush=True)
    app.state.model = await trio.to_thread.run_sync(Model, WEIGHTS)
    # An answer keeps a core busy. Further ones wait for their turn between two tokens.
    app.state.turns = trio.CapacityLimiter(1)
    yield


app = AgentApp(
    app_name="SmolLM",
    app_description="A language model of 135 million parameters, in this process",
    lifespan=lifespan,
    web_ui=True,  # the chat page at /chat
    drain_timeout=2,
)


@app.query()
async def chat(msgs: list[Message], request: AgentRequest) -> AsyncIterator[str]:
    past = await app.state.session_service.history(request.user_id, request.session_id, limit=20)
    conversation = [(message.role, message.text) for message in [*past, *msgs] if message.text]
    pieces = answer(app.state.model, conversation)
    # Each token is computed in a worker thread, so a stop waits for one token at most.
    while (piece := await trio.to_thread.run_sync(next, pieces, None, limiter=app.state.turns)) is not None:
        if piece:
            yield piece


if __name__ == "__main__":
    app.run()
