"""The four kinds of handler, each counting the words of the question.

`python examples/handlers/app.py async_generator`; the others are coroutine, sync_generator and sync_function.
"""

import sys
import time
from collections.abc import AsyncIterator, Iterator

import trio

from trio_agentapp import AgentApp, Message, Run, TextContent


async def async_generator(msgs: list[Message]) -> AsyncIterator[str]:
    """Stream each item at once. This is the usual kind of handler."""
    for number, word in enumerate(msgs[-1].text.split(), 1):
        yield f"{number} {word}\n"
        await trio.sleep(0.2)


async def coroutine(msgs: list[Message], run: Run) -> str:
    """Send the result. `run.emit` sends an item earlier."""
    await run.emit(Message.reasoning("I shall count the words."))
    await trio.sleep(0.2)
    return f"{len(msgs[-1].text.split())} words"


def sync_generator(msgs: list[Message], run: Run) -> Iterator[str]:
    """Run in a thread, where blocking calls are allowed. A stop ends it at its next yield."""
    run.on_exit(lambda: print(f"run {run.run_id} is over", flush=True))
    for number, word in enumerate(msgs[-1].text.split(), 1):
        yield f"{number} {word}\n"
        time.sleep(0.2)


def sync_function(msgs: list[Message], run: Run) -> TextContent | None:
    """Run in a thread. A thread cannot be interrupted, so a long computation checks `run.stopping`."""
    count = 0
    for _ in msgs[-1].text.split():
        if run.stopping:
            return None
        time.sleep(0.2)
        count += 1
    return TextContent(f"{count} words")


HANDLERS = {
    "async_generator": async_generator,
    "coroutine": coroutine,
    "sync_generator": sync_generator,
    "sync_function": sync_function,
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in HANDLERS:
        sys.exit(f"usage: python {sys.argv[0]} {{{','.join(HANDLERS)}}}")
    app = AgentApp(app_name=sys.argv[1])
    app.query()(HANDLERS[sys.argv[1]])
    app.run()
