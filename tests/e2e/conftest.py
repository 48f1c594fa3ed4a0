"""Starts agents: one for a whole module, or one for a test that ends it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .harness import WAYS, Server

Start = Callable[..., Server]


@pytest.fixture(scope="module", params=WAYS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The module's agent, `AGENT` with the options `OPTIONS`, in both ways; its log must be clean at the end."""
    module: Any = request.module
    folder = tmp_path_factory.mktemp(request.param)
    env = {"AGENT_OPTIONS": json.dumps(getattr(module, "OPTIONS", {}))}
    server = Server(getattr(module, "AGENT", "friday"), request.param, folder, env)
    try:
        server.wait_ready()
        yield server
    except BaseException:
        server.kill()
        raise
    server.close(allowed=getattr(module, "ALLOWED_LOG", ""))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts agents that the test itself ends, or that are killed after it."""
    with ExitStack() as stack:

        def start_one(
            agent: str = "friday",
            way: str = "run",
            *,
            flags: tuple[str, ...] = (),
            env: dict[str, str] | None = None,
            ready: bool = True,
            tls: ssl.SSLContext | None = None,
            **options: Any,
        ) -> Server:
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            folder.mkdir()
            server = Server(agent, way, folder, {"AGENT_OPTIONS": json.dumps(options), **(env or {})}, flags, tls)
            stack.callback(server.kill)
            if ready:
                server.wait_ready()
            return server

        yield start_one
