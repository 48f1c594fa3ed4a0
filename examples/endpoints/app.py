"""Routes beside an agent: JSON, streams, models. Start it and open http://127.0.0.1:8090/docs."""

import time
from collections.abc import AsyncIterator, Iterator
from enum import Enum

import attrs
import trio

from trio_agentapp import AgentApp, AgentRequest, Message

app = AgentApp(app_name="Librarian", app_description="Keeps notes, and reads them aloud.")

shelf: dict[str, "Note"] = {}


class Mood(Enum):
    CALM = "calm"
    EXCITED = "excited"


@attrs.define
class Note:
    """A note."""

    title: str
    text: str = ""
    tags: set[str] = attrs.field(factory=set)


@app.query()
async def chat(msgs: list[Message]) -> AsyncIterator[str]:
    yield f"I keep {len(shelf)} notes."


@app.endpoint("/hello")
def hello_endpoint():
    return {"msg": "Hello world"}


@app.endpoint("/stream_numbers")
async def stream_numbers():
    for i in range(5):
        yield f"number: {i}\n"


@app.endpoint("/notes", methods=["POST"])
async def keep(note: Note) -> Note:
    """Keep a note."""
    shelf[note.title] = note
    return note


@app.get("/notes")
async def notes(tag: str | None = None) -> list[Note]:
    """List all notes, or the notes with a tag."""
    return [note for note in shelf.values() if tag is None or tag in note.tags]


@app.endpoint("/notes/{title}/read", methods=["GET"])
async def read(title: str, mood: Mood = Mood.CALM, seconds: float = 0.2) -> AsyncIterator[str]:
    """Stream a note word by word, until the client hangs up."""
    said = 0
    try:
        for word in shelf[title].text.split() if title in shelf else ["Nothing."]:
            yield word.upper() if mood is Mood.EXCITED else word
            said += 1
            await trio.sleep(seconds)
    finally:
        await trio.sleep(0.1)  # a `finally` may await
        print(f"read {said} words of {title}", flush=True)


@app.endpoint("/count", methods=["GET"])
def count(to: int = 3) -> Iterator[dict[str, int]]:
    """Count in a sync generator, which runs in a thread and may block."""
    for number in range(1, to + 1):
        time.sleep(0.1)
        yield {"number": number}


@app.endpoint("/whoami")
async def whoami(request: AgentRequest):
    return {"user": request.user_id, "session": request.session_id}


@app.get("/info")
async def get_info():
    return {"app name": app.app_name, "app description": app.app_description, "notes": len(shelf)}


if __name__ == "__main__":
    app.run()
