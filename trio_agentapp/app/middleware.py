"""`@app.middleware("http")`: functions around the handling of a request, as in Starlette and FastAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from quart.typing import ResponseTypes
from quart.wrappers import Request

__all__ = ["CallNext", "Middleware", "layered"]

CallNext = Callable[[Request], Awaitable[ResponseTypes]]
Middleware = Callable[[Request, CallNext], Awaitable[ResponseTypes]]


def layered(middleware: Iterable[Middleware], dispatch: Callable[[], Awaitable[ResponseTypes]]) -> CallNext:
    """Return `dispatch` wrapped in each middleware. The last one is the outermost."""

    async def innermost(_request: Request) -> ResponseTypes:
        return await dispatch()

    call: CallNext = innermost
    for each in middleware:
        call = _layer(each, call)
    return call


def _layer(middleware: Middleware, inner: CallNext) -> CallNext:
    return lambda request: middleware(request, inner)
