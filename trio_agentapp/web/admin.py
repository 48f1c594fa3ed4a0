"""The routes of operators, `/admin/...`. They exist only in an app with an admin token, and require it.

The logger `trio_agentapp.admin` logs each call: the route, the client's address, and whether it was refused.
"""

from __future__ import annotations

import hmac
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import attrs
import trio
from quart import Response
from quart.wrappers import Request

from ..errors import NotOffered, Unauthorized
from ..runs import Run, RunRegistry
from ..server.problems import problem_of
from .parameters import number
from .responses import json_response

if TYPE_CHECKING:
    from ..endpoints.openapi import bodies

__all__ = ["AdminRoutes", "AdminView", "has_token"]

audit = logging.getLogger("trio_agentapp.admin")

MAX_LISTED = 1000
"""Runs in one answer of `/admin/runs`."""

LAG_WINDOW = 0.02
"""Seconds for which `/admin/status` sleeps, to measure by how much the event loop wakes it too late."""

AdminView = Callable[["AdminRoutes", Request], Awaitable[Response]]


@attrs.frozen(kw_only=True)
class AdminRoutes:
    """The views of operators for this node.

    Attributes:
        token: the admin token.
        backend: the name of the interrupt backend's class.
        config: the settings of the app, without secrets.
        count_failure: counts a request with a wrong token for its address; raises TooManyRequests.
        drain: drains this node.
        shut_down: returns a function that makes the server drain and end; None if it cannot be ended this way.
    """

    token: str = attrs.field(repr=False)
    app_name: str
    node_id: str
    backend: str
    registry: Callable[[], RunRegistry]
    unready_reason: Callable[[], str | None]
    connection_count: Callable[[], int | None]
    config: Callable[[], Mapping[str, Any]]
    count_failure: Callable[[Request], Awaitable[None]]
    drain: Callable[[], Awaitable[None]]
    shut_down: Callable[[], Callable[[], object] | None]
    started_at: float = attrs.field(factory=time.time)

    async def dispatch(self, view: AdminView, request: Request) -> Response:
        """Check the token, write the audit line, and call the view."""
        if not has_token(request, self.token):
            # The limit comes before the log line, so that a client cannot fill the log with refused requests.
            await self.count_failure(request)
            audit.warning("%s %s from %s: refused", request.method, request.path, request.remote_addr)
            refusal = problem_of(Unauthorized("This route needs the admin token: Authorization: Bearer <token>."))
            refusal.headers["WWW-Authenticate"] = "Bearer"
            return refusal
        audit.info("%s %s from %s: allowed", request.method, request.path, request.remote_addr)
        return await view(self, request)

    async def status(self, _request: Request) -> Response:
        """`GET /admin/status`: the state of this node."""
        due = trio.current_time() + LAG_WINDOW
        await trio.sleep_until(due)
        lag = max(0.0, trio.current_time() - due)
        figures, why = self.registry().statistics(), self.unready_reason()
        body: bodies.NodeStatus = {
            "app_name": self.app_name,
            "version": version("trio-agentapp"),
            "node": self.node_id,
            "pid": os.getpid(),
            "time": time.time(),
            "uptime_s": round(time.time() - self.started_at, 3),
            "cpu_s": round(time.process_time(), 3),
            "ready": why is None,
            "reason": why,
            "draining": figures.draining,
            "backend": self.backend,
            "backend_up": figures.backend_up,
            "runs_active": figures.live,
            "runs_queued": figures.queued,
            "runs_ended": figures.ended,
            "stuck": list(figures.stuck),
            "events": figures.events,
            "subscribers": figures.subscribers,
            "connections": self.connection_count(),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "loop_lag_s": round(lag, 6),
        }
        return json_response(body)

    async def runs(self, request: Request) -> Response:
        """`GET /admin/runs`: the live runs of this node, the oldest first."""
        limit = number(request, "limit", 100, least=1, most=MAX_LISTED)
        now = trio.current_time()
        live = sorted(self.registry().live(), key=lambda run: run.began_at)
        body: bodies.NodeRuns = {
            "node": self.node_id,
            "total": len(live),
            "runs": [_described(run, now) for run in live[:limit]],
        }
        return json_response(body)

    async def show_config(self, _request: Request) -> Response:
        """`GET /admin/config`: the settings of the app, without secrets."""
        return json_response({"settings": self.config()})

    async def start_drain(self, _request: Request) -> Response:
        """Refuse new runs from now on, and drain the live ones. The process continues to run."""
        registry = self.registry()
        registry.draining = True
        registry.services.start_soon(self.drain, name="drain by an operator")
        return json_response({"status": "draining", "node": self.node_id, "live": len(registry.live())}, 202)

    async def start_shutdown(self, _request: Request) -> Response:
        """Drain and end the server with all of its workers, as SIGTERM does."""
        shut_down = self.shut_down()
        if shut_down is None:
            raise NotOffered("This server cannot be told to end; send SIGTERM to its process.")
        shut_down()
        live = len(self.registry().live())
        return json_response({"status": "shutting down", "node": self.node_id, "live": live}, 202)


def has_token(request: Request, token: str) -> bool:
    """Return whether a request has this bearer token."""
    values = request.headers.getlist("Authorization")
    # With two headers, refuse: a proxy may have checked the other one.
    scheme, _, given = (values[0] if len(values) == 1 else "").partition(" ")
    # Compare in constant time, so that the duration does not show how much of a guess is right.
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    return right and scheme.lower() == "bearer"


def _described(run: Run, now: float) -> bodies.NodeRun:
    return {
        "run_id": run.run_id,
        "user_id": run.user_id,
        "session_id": run.session_id,
        "phase": run.lifecycle.phase.value,
        "cause": None if run.lifecycle.cause is None else run.lifecycle.cause.value,
        "stuck": run.lifecycle.is_stuck,
        "entry": run.entry,
        "handler": run.handler_name,
        "age_s": round(now - run.began_at, 3),
        "events": run.log.end,
        "subscribers": run.log.reader_count,
        "token": run.token,
    }
