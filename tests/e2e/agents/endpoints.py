"""An agent with endpoints: those of the page that describes the product, as they stand there, and unruly ones."""

from __future__ import annotations

import json
import os
import threading
import time

import attrs
import trio

from trio_agentapp import AgentApp, AgentRequest

app = AgentApp(
    **{"app_name": "Endpoints", "app_description": "A helpful assistant", **json.loads(os.environ["AGENT_OPTIONS"])}
)
agent_app = app


def mark(text: str) -> None:
    with open(os.path.join(os.environ["FOLDER"], "marks"), "a") as marks:
        marks.write(f"{text}\n")


@app.query()
async def chat(msgs):
    while True:
        yield "word "
        await trio.sleep(0.05)


# The examples of the page, with nothing changed but the imports.


@app.get("/info")
async def get_info():
    """Interface defined using native FastAPI"""
    return {
        "app name": app.app_name,
        "app description": app.app_description,
        "custom_metadata": "v1.0.0",
    }


@app.post("/update_config")
async def update_config(data: dict):
    """Standard POST request handling"""
    # Your business logic
    return {"status": "updated"}


@app.endpoint("/hello")
def hello_endpoint():
    return {"msg": "Hello world"}


@app.endpoint("/stream_numbers")
async def stream_numbers():
    for i in range(5):
        yield f"number: {i}\n"


@agent_app.post("/stop")
async def stop_task(request: AgentRequest):
    await agent_app.stop_chat(
        user_id=request.user_id,
        session_id=request.session_id,
    )
    return {
        "status": "success",
        "message": "Interrupt signal broadcasted.",
    }


# Others.


@attrs.define
class Thing:
    name: str


@app.endpoint("/items/{number}")
async def items(number: int, thing: Thing, words: list[str] = ()):
    return [number, words, thing]


@app.endpoint("/ticks", methods=["GET", "POST"])
async def ticks(cleanup: float = 0.2):
    number = 0
    try:
        while True:
            yield number
            number += 1
            await trio.sleep(0.05)
    finally:
        await trio.sleep(cleanup)
        mark("ticks closed")


@app.endpoint("/quiet", methods=["GET"])
async def quiet():
    try:
        yield "begun"
        await trio.sleep_forever()
    finally:
        await trio.sleep(0.2)
        mark("quiet closed")


@app.endpoint("/sync_ticks", methods=["GET"])
def sync_ticks():
    try:
        number = 0
        while True:
            yield {"number": number, "thread": threading.current_thread() is not threading.main_thread()}
            number += 1
            time.sleep(0.05)
    finally:
        time.sleep(0.1)
        mark("sync ticks closed")


@app.endpoint("/flood", methods=["GET"])
async def flood():
    made = 0
    try:
        while True:
            made += 1
            yield "x" * 1000
    finally:
        mark(f"flood closed after {made}")


@app.endpoint("/fails", methods=["GET"])
async def fails():
    yield 1
    raise LookupError("secret")


@app.endpoint("/blocks", methods=["GET"])
def blocks(seconds: float):
    time.sleep(seconds)
    return "done"


@app.endpoint("/quick", methods=["GET"])
async def quick():
    return "quick"


if __name__ == "__main__":
    app.run()
