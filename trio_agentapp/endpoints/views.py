"""Makes a view of a user's function.

The result of a function or coroutine is sent as JSON, a generator as Server-Sent Events. Synchronous functions run
in threads.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping
from typing import Any

import attrs
import trio
from quart import Response
from quart import request as current_request
from quart.wrappers import Request
from werkzeug.wrappers import Response as WerkzeugResponse

from ..protocol.serialiser import to_json
from ..runs.handler import HandlerKind, kind_of
from ..server.stream_body import event_stream_response
from .annotations import result_of
from .arguments import Arguments, read_arguments
from .fastapi import from_fastapi
from .generators import GeneratorBody, Items

__all__ = ["MAX_ENDPOINT_THREADS", "MAX_STREAM_THREADS", "Endpoints", "View"]

MAX_ENDPOINT_THREADS = 200
"""Limit of synchronous functions that run at once; further ones wait. Trio's default 40 threads are not used."""

MAX_STREAM_THREADS = 200
"""Limit of synchronous generators that run at once. It is separate, because they may wait for slow clients."""

NO_ARGUMENTS = Arguments(())


@attrs.frozen(kw_only=True)
class View:
    """What the OpenAPI document needs to describe a user's route."""

    fn: Callable[..., Any]
    arguments: Mapping[frozenset[str], Arguments]
    """The arguments of each route of the function, by the names in the route's path."""
    returns: Any = Any
    endpoint: bool = False
    """Whether `@app.endpoint` made it. Then the response is JSON or an event stream."""
    streams: bool = False
    """Whether the function is a generator. Then the response is an event stream."""


class Endpoints:
    """Makes the views of one app, which share two limits of threads."""

    def __init__(self, *, cleanup_budget: float, debug: bool) -> None:
        self._budget = cleanup_budget
        self._debug = debug
        self._threads = trio.CapacityLimiter(MAX_ENDPOINT_THREADS)
        self._stream_threads = trio.CapacityLimiter(MAX_STREAM_THREADS)
        self._natives: dict[int, _Native] = {}
        """By the id of the function. The value keeps the function alive, so the id stays valid."""

    def endpoint(self, fn: Callable[..., Any], *, path: Iterable[str], methods: Iterable[str]) -> Any:
        """Return the view of `@app.endpoint`. `path` has the names in the route's path.

        Raises ConfigurationError, naming function and parameter, if no request can fill a parameter.
        """
        name = _name_of(fn)
        path = frozenset(path)
        arguments = read_arguments(fn, name=f"endpoint {name}", path=path, methods=methods)
        kind = kind_of(fn)
        streams = kind in (HandlerKind.ASYNC_GENERATOR, HandlerKind.SYNC_GENERATOR)

        async def view(**values: Any) -> Any:
            request = _request()
            bound = await arguments.bind(request, values)
            if streams and request.method == "HEAD":
                return _empty_stream()
            return self._answer(await self._call(fn, kind, bound), name, request)

        return _labelled(
            view,
            fn,
            View(fn=fn, arguments={path: arguments}, returns=result_of(fn), endpoint=True, streams=streams),
        )

    def native(
        self, fn: Callable[..., Any], *, path: Iterable[str], braced: Iterable[str], methods: Iterable[str]
    ) -> Any:
        """Return the function of a route unchanged, or a view if it has parameters that are not in the path.

        `braced` has the names in the path that were written `{name}`. They are converted by their annotation, as in
        FastAPI. A function with several routes gets one view, which finds the route by the names in its path.

        Raises ConfigurationError as `endpoint` does.
        """
        given = frozenset(path)
        known = self._natives.get(id(fn))
        wanted = _parameters(fn)
        plain = all(name in given for name in wanted)
        converted = {name for name in braced if wanted.get(name, str) not in (inspect.Parameter.empty, str, "str")}
        if known is None and plain and not converted:
            return fn
        if known is None:
            known = self._natives[id(fn)] = _Native(fn, self._call)
        known.add(given, converted, methods)
        return known.view

    async def _call(self, fn: Callable[..., Any], kind: HandlerKind, bound: dict[str, Any]) -> Any:
        match kind:
            case HandlerKind.ASYNC_GENERATOR | HandlerKind.SYNC_GENERATOR:
                return fn(**bound)
            case HandlerKind.COROUTINE:
                return await fn(**bound)
            case HandlerKind.SYNC:
                call = functools.partial(fn, **bound)
                # In a tuple, because Trio refuses a function that returns a bare coroutine.
                (result,) = await trio.to_thread.run_sync(lambda: (call(),), limiter=self._threads)
                return await result if inspect.isawaitable(result) else result

    def _answer(self, result: Any, name: str, request: Request) -> Any:
        result = from_fastapi(result)
        if isinstance(result, Response | WerkzeugResponse):
            return result
        if isinstance(result, AsyncIterable) and not inspect.isasyncgen(result):
            result = _each(result)
        if inspect.isasyncgen(result) or inspect.isgenerator(result):
            return _empty_stream() if request.method == "HEAD" else self._stream(result, name)
        return Response(to_json(result), content_type="application/json")

    def _stream(self, items: Items, name: str) -> Response:
        body = GeneratorBody(items, name=name, budget=self._budget, threads=self._stream_threads, debug=self._debug)
        return event_stream_response(body, {})


class _Native:
    """The view of all routes of one function of the user."""

    def __init__(self, fn: Callable[..., Any], call: Callable[..., Awaitable[Any]]) -> None:
        self._fn = fn
        self._arguments: dict[frozenset[str], Arguments] = {}
        kind = kind_of(fn)

        async def view(**values: Any) -> Any:
            # A route that was added before the first one with arguments is not in the mapping.
            arguments = self._arguments.get(frozenset(values), NO_ARGUMENTS)
            bound = await arguments.bind(_request(), values)
            result = await call(fn, kind, bound)
            return Response(b"null", content_type="application/json") if result is None else result

        self.view = _labelled(view, fn, View(fn=fn, arguments=self._arguments, returns=result_of(fn)))

    def add(self, given: frozenset[str], converted: Iterable[str], methods: Iterable[str]) -> None:
        self._arguments[given] = read_arguments(
            self._fn,
            name=f"route {_name_of(self._fn)}",
            path=given,
            converted=converted,
            methods=methods,
            follow_wrapped=False,
        )


def _parameters(fn: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function's own parameters. A wrapped function's are filled by the decorator."""
    try:
        signature = inspect.signature(fn, follow_wrapped=False)
    except (TypeError, ValueError):
        return {}
    return {
        parameter.name: parameter.annotation
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


async def _each(items: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    async for item in items:
        yield item


def _empty_stream() -> Response:
    """Return the response to HEAD. The generator is not run, because its items would not be sent."""
    return Response(b"", content_type="text/event-stream; charset=utf-8")


def _name_of(fn: Callable[..., Any]) -> str:
    return str(getattr(fn, "__qualname__", None) or type(fn).__qualname__)


def _labelled(view: Any, fn: Callable[..., Any], described: View) -> Any:
    """Give the view the function's name, by which `url_for` finds it, and return it."""
    view.__name__ = getattr(fn, "__name__", None) or type(fn).__name__
    view.__doc__ = inspect.getdoc(fn)
    view.described = described
    return view


def _request() -> Request:
    request: Request = current_request._get_current_object()  # type: ignore[attr-defined]
    return request
