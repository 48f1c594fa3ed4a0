"""What an app is made of while it is open: made anew each time, and put together here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from ..abc import BaseInterruptBackend, EventStore
from ..runs import Handler, RunRegistry, Viewing
from ..runs.runner import Runner
from ..web.identity import Gate
from ..web.runs import RunRoutes
from ..web.service import RunService
from ..web.websocket import SocketRoute
from .memory import Memory

if TYPE_CHECKING:
    from .application import AgentApp

__all__ = ["Parts", "make_runner", "open_parts"]


@attrs.frozen(kw_only=True)
class Parts:
    registry: RunRegistry
    runner: Runner | None
    """None: the app has no handler."""
    run_routes: RunRoutes
    sockets: SocketRoute


def make_runner(
    app: AgentApp, backend: BaseInterruptBackend, store: EventStore, handler: Handler | None, framework_type: str
) -> tuple[RunRegistry, Runner | None]:
    """The registry, not open yet, and the handler's `self`: made early, as `@app.init` sets attributes on it."""
    settings = app.settings
    memory = Memory(app.state)
    registry = RunRegistry(
        backend,
        store=store,
        remember=memory.remember,
        undo=memory.undo,
        node_id=app.node_id,
        cleanup_budget=app.cleanup_budget,
        debug=settings.debug,
    )
    if handler is None:
        return registry, None
    return registry, Runner(
        app=app,
        handler=handler,
        registry=registry,
        framework_type=framework_type,
        on_disconnect=settings.on_disconnect,
        multitask_strategy=settings.multitask_strategy,
    )


@asynccontextmanager
async def open_parts(
    app: AgentApp,
    backend: BaseInterruptBackend,
    store: EventStore,
    gate: Gate,
    registry: RunRegistry,
    runner: Runner | None,
) -> AsyncIterator[Parts]:
    """Take runs inside this block."""
    settings = app.settings
    async with registry.open():
        service = RunService(
            runner=runner,
            registry=registry,
            backend=backend,
            viewing=Viewing(registry, backend, store),
            gate=gate,
        )
        yield Parts(
            registry=registry,
            runner=runner,
            run_routes=RunRoutes(
                service=service, stream_by_default=settings.streams_by_default, sse_done=settings.sse_done
            ),
            sockets=SocketRoute(
                service=service,
                max_message=settings.max_body_bytes,
                init_timeout=settings.read_timeout,
                origins=settings.cors_origins,
            ),
        )
