"""Wraps a handler that is written for asyncio into a handler that the run core can call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from ..abc.frameworks import FrameworkAdapter
from ..protocol.message import Message
from ..runs import HandlerKind, current_run
from ..runs.handler import kind_of
from .asyncio_run import AsyncioRun
from .bridge import Bridge

__all__ = ["bridged"]


def bridged(
    fn: Callable[..., Any], adapter: FrameworkAdapter, bridge_of: Callable[[], Bridge]
) -> Callable[..., Any]:
    """Wrap `fn`, which is written for asyncio, into a handler that the run core can call.

    `fn` runs on the loop of `bridge_of()`; if it is synchronous, in a worker thread. It keeps its parameters:
    `msgs` has the framework's types, and `run` is an `AsyncioRun`. The adapter translates the items that it yields.
    """
    if kind_of(fn) in (HandlerKind.SYNC, HandlerKind.SYNC_GENERATOR):
        return _in_thread(fn, adapter)

    @functools.wraps(fn)
    async def handler(**arguments: Any) -> AsyncIterator[object]:
        run, bridge = current_run.get(), bridge_of()
        reader = adapter.reader()
        if "run" in arguments:
            arguments["run"] = AsyncioRun(run, bridge)

        refused: list[Message] = []

        def call() -> Any:
            if "run" in arguments:
                adapter.prepare_run(arguments["run"])
            _convert(arguments, adapter, refused)
            return fn(**arguments)

        async with bridge.items(
            call,
            f"handler {run.handler_name!r}",
            tasks_first=adapter.at_stop if adapter.stops_tasks_first else None,
            in_stream=adapter.stops_in_stream,
        ) as items:
            try:
                async for item in items:
                    for translated in reader.read(item):
                        yield translated
            except Exception:
                for message in refused:
                    yield message
                raise
        for translated in reader.end():
            yield translated
        if reader.usage is not None and run.usage is None:
            run.usage = reader.usage

    return handler


def _convert(arguments: dict[str, Any], adapter: FrameworkAdapter, refused: list[Message]) -> None:
    """Convert the messages into the framework's types. A failure is reported to the client as invalid input."""
    if "msgs" not in arguments:
        return
    try:
        arguments["msgs"] = adapter.messages(arguments["msgs"])
    except Exception:
        text = f"The input cannot be converted to messages of {adapter.name}."
        refused.append(Message("assistant", "error", code="validation_error", message=text))
        raise


def _in_thread(fn: Callable[..., Any], adapter: FrameworkAdapter) -> Callable[..., Any]:
    @functools.wraps(fn)
    def handler(**arguments: Any) -> Iterator[object]:
        reader = adapter.reader()
        refused: list[Message] = []
        try:
            _convert(arguments, adapter, refused)
        except Exception:
            yield from refused
            raise
        result = fn(**arguments)
        for item in result if inspect.isgenerator(result) else (result,):
            if item is not None:
                yield from reader.read(item)
        yield from reader.end()

    return handler
