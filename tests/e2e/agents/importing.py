"""An agent that marks each module that is imported, or looked for, after its start. It has routes of every kind."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from trio_agentapp import AgentApp


class Marker:
    """A finder that finds nothing. Python asks it for each module that is not loaded yet."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        with open(os.path.join(os.environ["FOLDER"], "marks"), "a") as marks:
            marks.write(f"{name}\n")


@asynccontextmanager
async def lifespan(_app: Any) -> AsyncIterator[None]:
    sys.meta_path.insert(0, Marker())
    yield


app = AgentApp(
    app_name="Importing", lifespan=lifespan, enable_stream_task=True, **json.loads(os.environ["AGENT_OPTIONS"])
)


@app.query()
async def chat(msgs: Any) -> AsyncIterator[str]:
    yield "Hello"
    if msgs[-1].text == "fail":
        raise ValueError("bad weather")


@app.endpoint("/echo")
async def echo(data: dict[str, Any]) -> dict[str, Any]:
    return data


@app.endpoint("/count")
async def count() -> AsyncIterator[int]:
    yield 1
    raise ValueError("bad weather")


@app.task("/double")
async def double(number: int) -> int:
    return 2 * number


@app.get("/fail")
async def fail() -> None:
    raise ValueError("bad weather")


@app.get("/import/{name}")
async def import_it(name: str) -> dict[str, Any]:
    importlib.import_module(name)
    return {}


if __name__ == "__main__":
    app.run(host="127.0.0.1")
