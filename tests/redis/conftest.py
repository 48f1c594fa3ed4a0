"""Real servers, of each kind that is installed; nothing here waits for longer than it has to."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from trio_agentapp.testing.faulty_proxy import FaultyProxy
from trio_agentapp.testing.redis_server import RedisServer, TLSFiles, installed_kinds

WITHIN = 10.0
"""Seconds that a condition may take to come true; far more than it should."""


@pytest.fixture(params=installed_kinds())
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def server(kind: str) -> AsyncIterator[RedisServer]:
    async with RedisServer(kind) as server:
        yield server


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy.open(server.port) as proxy:
        yield proxy


Until = Callable[..., Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Wait for a condition of the outer world: looked at again and again, and never for a fixed time."""

    async def wait(condition: Callable[[], object], within: float = WITHIN) -> None:
        with trio.fail_after(within):
            while not condition():
                await trio.sleep(0.002)

    return wait


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TLSFiles:
    """Made by the openssl program, without which these tests cannot run."""
    folder = tmp_path_factory.mktemp("certificates")
    openssl = shutil.which("openssl")
    assert openssl is not None

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    authority = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign", "subjectKeyIdentifier=hash")
    (folder / "authority").write_text(
        "\n".join(("[req]", "distinguished_name=name", "x509_extensions=ca", "[name]", "[ca]", *authority))
    )
    run(
        "req",
        "-x509",
        *key,
        "-days",
        "2",
        "-subj",
        "/CN=CA",
        "-config",
        "authority",
        "-keyout",
        "ca.key",
        "-out",
        "ca",
    )
    for name in ("server", "client"):
        run("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = ("-CA", "ca", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2")
        run("x509", "-req", "-in", f"{name}.csr", *signing, "-out", name)
    return TLSFiles(*(folder / name for name in ("ca", "server", "server.key", "client", "client.key")))


@pytest.fixture
def other_authority(tmp_path: Path) -> Path:
    """The certificate of a CA that signed nothing here."""
    openssl = shutil.which("openssl")
    assert openssl is not None
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=Other", "-keyout", "key", "-out", "other"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "other"
