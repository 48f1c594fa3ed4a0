"""Endpoints, tasks, hooks and settings of an app."""

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
from quart import Request, Response

from trio_agentapp import AgentApp, Principal, StopReceipt, current_task
from trio_agentapp.deploy import LocalDeployManager
from trio_agentapp.errors import Forbidden, ValidationError


@attrs.define
class Note:
    title: str
    words: int = 0


@asynccontextmanager
async def lifespan(app: AgentApp) -> AsyncIterator[None]:
    app.state.notes = {}
    yield


async def authenticate(request: Request) -> Principal | None:
    token = request.headers.get("Authorization")
    return None if token is None else Principal(user_id=token)


async def authorize(
    principal: Principal | None, action: str, user_id: str, session_id: str | None, run_id: str | None
) -> bool:
    return principal is not None and principal.user_id == user_id


app = AgentApp(
    lifespan=lifespan, authenticate=authenticate, authorize=authorize, cors_origins=("https://a.example",)
)


@app.endpoint("/notes/{collection}", methods=["PUT"])
async def keep(collection: str, note: Note, limit: int = 10) -> dict[str, Any]:
    if limit < 1:
        raise ValidationError([("query.limit", "must be 1 or more")])
    if collection == "secret":
        raise Forbidden("That is not yours.")
    return {"collection": collection, "note": note}


@app.endpoint("/watch", methods=("GET",))
async def watch(since: datetime.date | None = None) -> AsyncIterator[int]:
    yield 1


@app.get("/info")
async def info() -> tuple[dict[str, str], int]:
    return {"name": app.app_name}, 200


@app.post("/raw")
async def raw(request: Request) -> Response:
    return Response(await request.get_data(), content_type="text/plain")


@app.task("/longjob", timeout=10)
async def longjob(x: int, y: float = 1.0) -> float:
    task = current_task()
    async with task.cleanup():
        stopped: bool = task.stopping.is_set()
    return 0.0 if stopped else x * y


async def uses() -> StopReceipt:
    note: dict[str, Any] = await keep("a", Note("A robot"), limit=3)
    result: float = await longjob(3, y=2.0)
    assert note
    assert result
    async with app.runtime(), app.stream_query("Hello") as events:
        async for event in events:
            number: int = event.sequence_number
            assert number >= 0
    service = await app.deploy(LocalDeployManager(port=0))
    url: str = service.url
    assert url
    receipt = await app.stop_chat("u1", "s1", wait=True)
    flags: tuple[bool, bool] = (receipt.accepted, receipt.stopped)
    assert flags
    return receipt


# What must not pass.

nameless = Principal()  # type: ignore[call-arg]
positional = AgentApp("Friday")  # type: ignore[arg-type]


@app.endpoint(5)  # type: ignore[arg-type]
async def wrong_path() -> None: ...


@app.task("/soon", timeout="10")  # type: ignore[arg-type]
async def wrong_timeout() -> None: ...


async def wrong_uses() -> None:
    await keep("a", "A robot")  # type: ignore[arg-type]
    await longjob("3")  # type: ignore[arg-type]
    await app.stop_chat("u1")  # type: ignore[call-arg]
    async for event in app.stream_query("Hello"):  # type: ignore[attr-defined]
        assert event
    receipt = await app.stop_chat("u1", "s1")
    receipt.stopped = True  # type: ignore[misc]
    assert receipt.stoped  # type: ignore[attr-defined]
    raise ValidationError("query.limit")  # type: ignore[arg-type]
