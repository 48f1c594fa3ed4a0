"""An app with routes of every kind, for bodies and parameters of every kind. Its handler is quick."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import typing
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import attrs
import msgspec
import pydantic

from trio_agentapp import AgentApp, AgentRequest

app = AgentApp(app_name="Fuzzed", app_description="Takes anything.")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.define
class Item:
    name: str
    price: float = 1.0
    colour: Colour | None = None
    below: list[Item] = attrs.field(factory=list)


@dataclasses.dataclass
class Line:
    item: Item
    when: datetime.datetime | None = None
    amount: decimal.Decimal = decimal.Decimal(1)
    place: tuple[float, str] = (0.0, "")
    ids: set[int] = dataclasses.field(default_factory=set)
    more: dict[str, int | str] = dataclasses.field(default_factory=dict)
    kind: Literal["a", "b", 1] = "a"
    raw: bytes = b""


class Struct(msgspec.Struct):
    number: int
    next: Struct | None = None


class Model(pydantic.BaseModel):
    number: int
    words: list[str] = []
    below: Model | None = None


class Options(typing.TypedDict, total=False):
    depth: int
    words: list[str]


@app.query()
async def chat(request: AgentRequest) -> AsyncIterator[Any]:
    yield f"{len(request.input)} messages "
    yield "and two deltas."


@app.endpoint("/echo")
async def echo(data) -> Any:  # type: ignore[no-untyped-def]
    return data


@app.endpoint("/items/{number}", methods=["POST", "PUT"])
async def items(
    number: int, item: Item, words: list[str] = (), dry: bool = False, colour: Colour | None = None
) -> Item:
    return item


@app.endpoint("/lines")
def lines(line: Line, at: datetime.date | None = None, key: uuid.UUID | None = None) -> Line:
    return line


@app.endpoint("/several")
async def several(
    struct: Struct, model: Model, options: Options | None = None, *, note: str = ""
) -> dict[str, Any]:
    return {"struct": struct, "model": model, "options": options, "note": note}


@app.endpoint("/bulk")
async def bulk(items: list[Item]) -> dict[str, int]:
    return {"items": len(items)}


@app.endpoint("/either")
async def either(thing: Item | list[int] | str | None = None) -> Any:
    return thing


@app.endpoint("/stream", methods=["GET", "POST"])
async def stream(count: Literal[0, 1, 2] = 1, data: dict[str, Any] | None = None) -> AsyncIterator[Any]:
    for _ in range(count):
        yield data


@app.endpoint("/sync_stream", methods=["GET"])
def sync_stream(word: str = "word", numbers: list[float] = ()) -> Iterator[Any]:
    yield word
    yield numbers


@app.endpoint("/agent")
async def agent(request: AgentRequest) -> dict[str, Any]:
    return {"user": request.user_id, "messages": request.input, "more": request.extra}


@app.post("/update_config")
async def update_config(data: dict) -> dict[str, str]:  # type: ignore[type-arg]
    return {"status": "updated"}


@app.get("/native/{number}/{rest:path}")
async def native(number: int, rest: str, limit: int = 5) -> dict[str, Any]:
    return {"number": number, "rest": rest, "limit": limit}


if __name__ == "__main__":
    app.run()
