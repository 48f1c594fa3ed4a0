"""The base class of protocol adapters, which serve the same runs by another protocol.

    class Shout(ProtocolAdapter):
        name = "shout"

        def routes(self):
            return [("POST", "/shout", self.shout)]

        async def shout(self, request):
            asked = AgentRequest(input=(await request.get_data()).decode())
            watched = await self.app.access.start(await self.caller(request), asked)
            return self.stream(request, watched, ShoutedText())

Stops, limits and drains work for the runs of every protocol, because all start their runs by `RunAccess`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs
from quart import Response
from quart.wrappers import Request
from werkzeug.exceptions import HTTPException

from ..runs.runner import Watched
from .identity import Caller
from .responses import run_headers
from .run_access import RunAccess
from .sse import Spelling, hold_watch, run_stream

__all__ = ["ProtocolAdapter", "ServedApp", "WireRoute"]

WireRoute = tuple[str, str, Callable[..., Awaitable[Response]]]
"""A method, a path as Quart writes it, and the view. The view gets the request and, by name, the path's values."""


@attrs.frozen(kw_only=True)
class ServedApp:
    """The parts of an open app that an adapter uses."""

    name: str
    description: str
    access: RunAccess
    """Starts, finds, watches and stops runs for a caller, and checks what the caller may do."""
    node_id: str
    max_body_bytes: int
    addresses: Callable[[], Sequence[str]]
    """Returns the URLs on which this process listens; empty before it listens, and under another server."""
    unready_reason: Callable[[], str | None]
    """Returns why the app accepts no new runs at present; None if it is ready."""
    root_path: str = ""
    """The path prefix of the settings. For the prefix of one request, use `link`."""


class ProtocolAdapter(ABC):
    """Serves runs by another protocol. An adapter belongs to one app."""

    name: ClassVar[str]
    """The name of the protocol, for log lines and error messages."""

    _app: ServedApp | None = None

    @property
    def app(self) -> ServedApp:
        """The app. Raises RuntimeError: it is not open."""
        if self._app is None:
            raise RuntimeError(f"the app of the adapter for {self.name} is not open")
        return self._app

    @abstractmethod
    def routes(self) -> Sequence[WireRoute]:
        """The routes of the protocol.

        Called once, when the app is first opened. A route of the user with the same path has precedence.
        """

    def refusal(self, path: str, error: HTTPException) -> Response | None:  # noqa: ARG002  most have no such paths
        """The response to a request that no route takes: 404, or 405 for its method. None: a problem document.

        Override it if clients of the protocol expect errors in a shape of their own at all of its paths.
        """
        return None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Entered while `app` is open. Override it to run services of the protocol."""
        yield

    async def before_drain(self) -> None:  # noqa: B027  most adapters have nothing to do here
        """Called before the app refuses new runs. The drain waits for it, for 3 s at most."""

    def details(self) -> Mapping[str, Any]:
        """Further members for the answer of `GET /readiness`, about services of the protocol."""
        return {}

    @asynccontextmanager
    async def opened(self, app: ServedApp) -> AsyncIterator[None]:
        """Open the adapter for an app. The app calls it."""
        self._app = app
        try:
            async with self.serving():
                yield
        finally:
            self._app = None

    async def caller(self, request: Request, *, user_id: str | None = None) -> Caller:
        """Return who sends a request, on behalf of `user_id` if it names one. Raises Unauthorized."""
        return Caller(await self.app.access.gate.identify(request), user_id)

    def stream(
        self, request: Request, watched: Watched, spelling: Spelling, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Return the response that streams a run, written as `spelling` writes it.

        The reader is closed with the response. Call it right after the reader was opened, without an await between.
        """
        hold_watch(request, watched.subscriber)
        return run_stream(
            watched, spelling, {**run_headers(request, watched.run_id, watched.session_id), **(headers or {})}
        )
