"""The documented nginx configuration, before two nodes."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from trio_websocket import open_websocket_url

from .conftest import Start
from .harness import Server, free_port, fresh, say

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "deploy-behind-a-balancer.md"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def documented(servers: list[Server], port: int, folder: Path) -> str:
    """The page's configuration, with what has to be other here: addresses and files."""
    [text] = re.findall(r"(?s)```nginx\n(.*?)```", PAGE.read_text())
    for number, server in enumerate(servers, 1):
        text, count = re.subn(rf"10\.0\.0\.{number}:8090", f"127.0.0.1:{server.port}", text)
        assert count == 1
    for before, after in (
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("/etc/ssl/agents.pem", f"{folder}/agents.pem"),
        ("/etc/ssl/agents.key", f"{folder}/agents.key"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    places = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"pid {folder}/pid; error_log stderr; daemon off; master_process off; events {{}}\n"
        f"http {{ access_log off;\n{places}{text} }}"
    )


@pytest.fixture
def nodes(start: Start) -> list[Server]:
    return [start(drain_timeout=60), start(drain_timeout=60)]


@asynccontextmanager
async def nginx_before(nodes: list[Server], folder: Path) -> AsyncIterator[str]:
    """Run nginx as documented, before these nodes; the URL is that of clients."""
    made = ("-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2")
    command = ["openssl", "req", *made, "-keyout", "agents.key", "-out", "agents.pem"]
    await trio.run_process(command, cwd=folder, capture_stdout=True, capture_stderr=True)
    port = free_port()
    (folder / "conf").write_text(documented(nodes, port, folder))
    assert NGINX is not None
    with (folder / "log").open("wb") as log:
        arguments = ["-p", str(folder), "-c", str(folder / "conf"), "-e", "stderr"]
        process = subprocess.Popen([NGINX, *arguments], stdout=log, stderr=log)
    try:
        with trio.fail_after(15):
            while True:
                assert process.poll() is None, (folder / "log").read_text()
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    await trio.sleep(0.02)
        yield f"https://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def url(nodes: list[Server], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with nginx_before(nodes, tmp_path_factory.mktemp("nginx")) as url:
        yield url


async def test_while_one_node_drains_no_request_is_refused(nodes: list[Server], url: str) -> None:
    leaving, staying = nodes
    session = fresh()
    async with httpx.AsyncClient(verify=False, http2=False, timeout=20) as client, leaving.connect() as direct:
        await direct.send("POST", "/process", {"input": say(), "do": "endless", "session_id": session})
        await direct.head()
        leaving.send_signal()
        with leaving.deadline(10, "drain"):
            while (await leaving.call("GET", "/readiness")).status != 503:
                await trio.sleep(0.01)
        for _ in range(12):
            answer = await client.post(f"{url}/process", json={"input": say(), "session_id": fresh()})
            assert answer.status_code == 200, answer.text
            assert "World!" in answer.text
        assert leaving.process.poll() is None, "it still drains"
        # When no node takes new runs, the client is told so in the node's own words.
        async with staying.connect() as other:
            await other.send("POST", "/process", {"input": say(), "do": "endless", "session_id": fresh()})
            await other.head()
            staying.send_signal()
            with staying.deadline(10, "drain"):
                while (await staying.call("GET", "/readiness")).status != 503:
                    await trio.sleep(0.01)
            for _ in range(4):
                answer = await client.post(f"{url}/process", json={"input": say()})
                assert (answer.status_code, answer.json()["code"]) == (503, "draining")
                assert answer.headers["retry-after"] == "1"


async def test_events_pass_at_once_and_sockets_too(nodes: list[Server], url: str) -> None:
    session = fresh()
    body = {"input": say(), "do": "gated", "session_id": session}
    async with httpx.AsyncClient(verify=False, timeout=20) as client:
        async with client.stream("POST", f"{url}/process", json=body) as answer:
            assert answer.status_code == 200
            lines = answer.aiter_lines()
            # The first events are here while the run waits for its gate.
            while '"in_progress"' not in await anext(lines):
                pass
            for node in nodes:
                await node.call("POST", f"/test/gate/{session}")
            rest = [line async for line in lines]
            assert any('"completed"' in line for line in rest)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with trio.fail_after(20):
        async with open_websocket_url(f"{url.replace('https', 'wss')}/ws", ssl_context=context) as socket:
            assert socket.remote.is_ssl
