"""An agent as a process of its own, for OpenAI's clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ...e2e.harness import Server

ALLOWED_LOG = r"^.*(the handler failed|a secret of the handler|ended without output).*$"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server("assistant", "run", tmp_path_factory.mktemp("assistant"), {"AGENT_OPTIONS": "{}"})
    try:
        server.wait_ready()
        yield server
    except BaseException:
        server.kill()
        raise
    server.close(allowed=ALLOWED_LOG)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same agent; its users have keys."""
    folder = tmp_path_factory.mktemp("guarded")
    server = Server("assistant", "run", folder, {"AGENT_OPTIONS": '{"keys": true}'})
    try:
        server.wait_ready()
        yield server
    finally:
        server.kill()
