"""Friday, an agent that tells a story. If you stop her in the middle, she continues there in the next turn.

She reads from a script, so she needs no model and no network. `python examples/friday/app.py` starts her; HOST and
PORT in the environment choose another address.
"""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from trio_agentapp import AgentApp, AgentRequest, Message, Run

STORY = re.findall(r"\S+\s*", Path(__file__).with_name("story.txt").read_text())
PACE = 0.1  # seconds between two words

HINT = """
Open http://{address}/chat in a browser, and talk to Friday there.

Or in one terminal, ask Friday for a story ({seconds} seconds):

  curl -N http://{address}/process -H 'Content-Type: application/json' \\
    -d '{{"session_id": "s1", "user_id": "u1", "input": [{{"role": "user", "content": "Tell me a story"}}]}}'

In another one, stop her:

  curl 'http://{address}/stop?wait=1' -H 'Content-Type: application/json' \\
    -d '{{"session_id": "s1", "user_id": "u1"}}'

Then ask again: she goes on where she stopped.
"""


@asynccontextmanager
async def lifespan(app: AgentApp) -> AsyncIterator[None]:
    """Run a background task as long as the app. A nursery may stay open across the `yield`."""
    app.state.shooting_stars = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_the_sky, app)
        address = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8090')}"
        print(HINT.format(address=address, seconds=round(len(STORY) * PACE)), flush=True)
        yield
        nursery.cancel_scope.cancel()


async def watch_the_sky(app: AgentApp) -> None:
    while True:
        await trio.sleep(2)
        app.state.shooting_stars += 1


app = AgentApp(
    app_name="Friday",
    app_description="Tells stories, and remembers where she was",
    lifespan=lifespan,
    web_ui=True,  # the chat page at /chat
    drain_timeout=2,  # seconds that a running story has after Ctrl-C until it is stopped
)


@app.query()
async def friday(msgs: list[Message], request: AgentRequest, run: Run):
    if msgs and msgs[-1].text.lower().startswith(("hello", "hi")):
        yield "Hello! I am Friday. Ask me for a story."
        return

    memory = await app.state.state_service.load(request.user_id, request.session_id) or {}
    told = memory.get("told", 0)
    try:
        if told == 0:
            async for message in prepare():
                yield message
        else:
            yield "Where was I? Ah, yes. "

        for word in STORY[told:]:
            yield word
            told += 1
            await trio.sleep(PACE)
        told = 0  # the next story begins with its first word

    except trio.Cancelled:
        # Without run.cleanup() every await in this block would raise Cancelled again.
        async with run.cleanup():
            await close_the_book(run, told)
        raise

    finally:
        # This also works after a stop, because the store shields its own write.
        await app.state.state_service.save(request.user_id, request.session_id, {"told": told})


async def prepare() -> AsyncIterator[Message]:
    """Send some reasoning and a tool call before the story begins."""
    await trio.sleep(0.5)
    yield Message.reasoning("They would like a story. Let me see what kind of night it is.")

    call = Message.tool_call("look_at_the_sky", {"direction": "up"})
    yield call
    await trio.sleep(1)
    yield Message.tool_output(
        call.content[0].data["call_id"], {"sky": "clear", "shooting_stars": app.state.shooting_stars}
    )


async def close_the_book(run: Run, told: int) -> None:
    await trio.sleep(0.2)
    print(f"Friday closes the book of session {run.session_id} after {told} words.", flush=True)


if __name__ == "__main__":
    app.run()
