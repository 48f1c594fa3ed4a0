"""An agent that logs, in ways that try to look like somebody else."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import AsyncIterator
from typing import Any

import trio

from trio_agentapp import AgentApp

log = logging.getLogger("my.agent")
if os.environ.get("ROOT"):
    logging.basicConfig(level=logging.INFO, format="ROOT %(levelname)s %(name)s %(message)s")
if os.environ.get("OWN"):
    log.addHandler(logging.StreamHandler())

app = AgentApp(app_name="Talker", **json.loads(os.environ.get("AGENT_OPTIONS", "{}")))


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@app.query()
async def chat(msgs: Any) -> AsyncIterator[str]:
    text = msgs[-1].content[0].text
    log.info("asked: %s", text)
    if text == "log":
        await trio.to_thread.run_sync(log.info, "in a thread")
        log.info("%s and %s", Wordless(), "\ud800")
        log.info("%d and %d", 1)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn("careful", stacklevel=1)
    if text == "fail":
        raise ValueError("no such city\n2026-01-01T00:00:00.000Z CRITICAL forged: by an exception")
    if text == "wordless":
        raise Wordless
    if text == "wrong":
        yield 5  # type: ignore[misc]
    yield "done"


@app.get("/boom/<name>")
async def boom(name: str) -> str:
    raise LookupError(name)


if __name__ == "__main__":
    app.run()
