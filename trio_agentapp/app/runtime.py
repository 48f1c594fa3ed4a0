"""The runtime of an app: the stores, hooks, runs and tasks that are open while the app runs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import trio

from ..abc import Instrument
from ..frameworks.bridge import Bridge, BridgeClosed, open_bridge
from ..interrupts import LocalInterruptBackend
from ..limits import Rates, rate_limit
from ..nursery import nursery_around
from ..protocol.trace_context import load_propagation
from ..runs import Handler, RunRegistry, Viewing, drain
from ..runs.containment import noted
from ..runs.registry import MAX_RUNS_PER_USER
from ..runs.runner import Runner
from ..stores import stores_of
from ..web.identity import Gate
from ..web.protocol_adapter import ProtocolAdapter, ServedApp
from ..web.run_access import RunAccess
from ..web.runs import RunRoutes
from ..web.sessions import SessionRoutes
from ..web.websocket import SocketRoute
from .backends import backend_of, event_store_of, sharing_of
from .hooks import LifeHooks, shielded
from .memory import Memory
from .settings import Settings
from .state import AppState
from .tasks import AppTasks

__all__ = ["Parts", "Runtime"]

logger = logging.getLogger("trio_agentapp.app")

BEFORE_DRAIN = 3.0
"""Seconds that protocols may delay a drain, for instance to leave a registry."""


@attrs.frozen(kw_only=True)
class Parts:
    """The parts that are made each time an app is opened."""

    registry: RunRegistry
    runner: Runner | None
    """None in an app without a handler."""
    run_routes: RunRoutes
    session_routes: SessionRoutes
    sockets: SocketRoute


class Runtime:
    """Opens and closes the parts of an app in order; they can be opened again after that."""

    def __init__(
        self,
        settings: Settings,
        *,
        node_id: str,
        gate: Gate,
        hooks: LifeHooks,
        tasks: AppTasks,
        adapters: Sequence[ProtocolAdapter],
        instruments: Sequence[Instrument] = (),
        requests: Rates,
    ) -> None:
        self.backend = backend_of(settings)
        self._event_store = event_store_of(settings, self.backend, node_id)
        alone = isinstance(self.backend, LocalInterruptBackend)
        self._stores = stores_of(settings.state_url, prefix=settings.redis_prefix, alone=alone)
        self.state = AppState(self._stores.states, self._stores.sessions)
        self._settings = settings
        self._node_id = node_id
        self._gate = gate
        self._hooks = hooks
        self._tasks = tasks
        self._adapters = adapters
        self._instruments = instruments
        self._requests = requests
        self._frames = rate_limit("frames", settings.frames_per_second)
        self.parts: Parts | None = None
        """None while the app is not open."""
        self.served_at: Sequence[str] = ()
        self._bridge: Bridge | None = None
        self._drained: trio.Event | None = None
        self._hurry = trio.Event()
        """Set when the drain must not wait for live runs any longer."""

    @property
    def bridge(self) -> Bridge:
        """The asyncio loop of the app, while it is open. Raises BridgeClosed."""
        if self._bridge is None:
            raise BridgeClosed("app.bridge works while the app runs: in its lifespan, in handlers and in routes.")
        return self._bridge

    @asynccontextmanager
    async def open(self, app: object, handler: Handler | None, framework_type: str) -> AsyncIterator[None]:
        """Open everything that handlers may use, and close it in the opposite order, also if opening fails midway.

        The order is: the stores, the asyncio loop, `before_start`, `@app.init`, the user's lifespan, the run
        registry, tasks. So a handler can use all of them until its cleanup is over.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(noted())
            await stack.enter_async_context(self._stores.open())
            stack.push_async_callback(shielded, self.state.state_service.aclose)
            stack.push_async_callback(shielded, self.state.session_service.aclose)
            stack.push_async_callback(shielded, self.backend.aclose)
            self._bridge = await stack.enter_async_context(open_bridge())
            # Import it now, so that no request waits for the import.
            load_propagation()
            sharing = sharing_of(self.backend, (self._requests, self._frames))
            await stack.enter_async_context(self._hooks.around_all(app))
            registry = self._make_registry()
            # The runner is the handler's `self`. It is made this early, because `@app.init` sets attributes on it.
            runner = None
            if handler is not None:
                runner = Runner(
                    app=app,
                    handler=handler,
                    registry=registry,
                    framework_type=framework_type,
                    on_disconnect=self._settings.on_disconnect,
                    multitask_strategy=self._settings.multitask_strategy,
                )
            await stack.enter_async_context(self._hooks.around_runs(app, runner))
            await stack.enter_async_context(registry.open())
            if sharing is not None:
                await stack.enter_async_context(_running(sharing))
            parts = self._make_parts(registry, runner)
            await stack.enter_async_context(self._tasks.open(registry, self.backend, runner))
            self.parts, self._drained = parts, None
            try:
                if runner is not None:
                    await self._open_adapters(stack, parts.run_routes.access)
                yield
            finally:
                self.parts = None

    async def _open_adapters(self, stack: AsyncExitStack, access: RunAccess) -> None:
        for adapter in self._adapters:
            app = ServedApp(
                name=self._settings.app_name,
                description=self._settings.app_description,
                access=attrs.evolve(access, entry=adapter.name),
                node_id=self._node_id,
                max_body_bytes=self._settings.max_body_bytes,
                addresses=lambda: self.served_at,
                unready_reason=self.unready_reason,
                root_path=self._settings.root_path.rstrip("/"),
            )
            await stack.enter_async_context(adapter.opened(app))

    async def drain(self, hurry: trio.Event | None = None) -> None:
        """Drain runs and tasks, and close the WebSockets without runs. A second call waits for the first."""
        parts = self.parts
        if self._drained is not None:
            await self._wait_drained(self._drained, hurry)
        elif parts is not None:
            self._drained = trio.Event()
            self._hurry = trio.Event() if hurry is None else hurry
            parts.sockets.draining.set()
            try:
                await self._announce_drain()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._tasks.drain, self._hurry)
                    nursery.start_soon(drain, parts.registry, self._settings.drain_timeout, self._hurry)
            finally:
                self._drained.set()

    async def _wait_drained(self, drained: trio.Event, hurry: trio.Event | None) -> None:
        """Wait for a drain that was started before. `hurry` shortens that drain, too."""

        async def pass_on(hurry: trio.Event) -> None:
            await hurry.wait()
            self._hurry.set()

        async with trio.open_nursery() as nursery:
            if hurry is not None:
                nursery.start_soon(pass_on, hurry)
            await drained.wait()
            nursery.cancel_scope.cancel(reason="the drain is over")

    async def _announce_drain(self) -> None:
        with trio.move_on_after(BEFORE_DRAIN):
            for adapter in self._adapters:
                try:
                    await adapter.before_drain()
                except Exception:
                    logger.exception("the adapter for %s failed before the drain", adapter.name)

    def unready_reason(self) -> str | None:
        """Return why this node should get no new runs at present; None if it may get them."""
        if self.parts is None:
            return "starting"
        registry = self.parts.registry
        if registry.draining:
            return "draining"
        if trouble := self.backend.trouble:
            return trouble
        if stuck := registry.stuck():
            return f"{len(stuck)} stopped run(s) have not ended within their cleanup budget"
        return None

    def _make_registry(self) -> RunRegistry:
        memory = Memory(self.state)
        return RunRegistry(
            self.backend,
            store=self._event_store,
            remember=memory.remember,
            undo=memory.undo,
            node_id=self._node_id,
            cleanup_budget=self._settings.cleanup_budget,
            debug=self._settings.debug,
            max_runs=self._settings.max_runs,
            max_runs_per_user=self._max_runs_per_user(),
            instruments=self._instruments,
        )

    def _max_runs_per_user(self) -> int:
        if (chosen := self._settings.max_runs_per_user) is not None:
            return chosen
        # Without an `authenticate` hook, a front end may send one user id for all of its users.
        return MAX_RUNS_PER_USER if self._gate.asks else self._settings.max_runs

    def _make_parts(self, registry: RunRegistry, runner: Runner | None) -> Parts:
        settings = self._settings
        access = RunAccess(
            runner=runner,
            registry=registry,
            backend=self.backend,
            viewing=Viewing(registry, self.backend, self._event_store),
            gate=self._gate,
        )
        return Parts(
            registry=registry,
            runner=runner,
            run_routes=RunRoutes(
                access=access,
                stream_by_default=settings.stream and settings.response_type == "sse",
                sse_done=settings.sse_done,
            ),
            session_routes=SessionRoutes(
                store=lambda: self.state.session_service, backend=self.backend, gate=self._gate
            ),
            sockets=SocketRoute(
                access=attrs.evolve(access, entry="ws"),
                max_message=settings.max_body_bytes,
                init_timeout=settings.read_timeout,
                origins=settings.cors_origins,
                frames=self._frames,
                max_sockets=settings.max_sockets_per_user,
            ),
        )


@asynccontextmanager
async def _running(task: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run a task that does not end, inside this block."""
    async with nursery_around() as nursery:
        nursery.start_soon(task)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel(reason="the app closes")
