"""Certificates on the command line: a server that asks for them, and commands that present one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trio_agentapp.cli.target import Access
from trio_agentapp.errors import ConfigurationError

from .conftest import Shell

if TYPE_CHECKING:
    from tests.certificates import Authority

AGENT = """
from trio_agentapp import AgentApp
from trio_agentapp.auth import ClientCertificates

app = AgentApp(authenticate=ClientCertificates(), admin_token="correct-horse-battery")

@app.query()
async def chat(request):
    yield f"hello {request.user_id}"
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    # Not at the top: tests make an image of this folder, and what its modules import has to be installed then.
    from tests.certificates import Authority

    return Authority(tmp_path)


def test_a_server_that_reloads_and_its_clients(shell: Shell, authority: Authority) -> None:
    server, anna = authority.server(), authority.issue("anna")
    (shell.folder / "agent.py").write_text(AGENT)
    options = ("--certfile", str(server.cert), "--keyfile", str(server.key), "--ca-certs", str(authority.cert))
    running = shell.start("run", "agent.py", "--port", "0", "--reload", *options)
    running.wait_for("ready on https://")
    found = re.search(r"ready on https://127\.0\.0\.1(:\d+)", running.output)
    assert found
    url = f"https://localhost{found[1]}"
    trust = {"SSL_CERT_FILE": str(authority.cert)}
    mine = ("--cert", str(anna.cert), "--key", str(anna.key))
    assert shell.call("invoke", url, "hi", *mine, **trust).stdout == "hello anna\n"
    assert "certificate required" in shell.call("invoke", url, "hi", code=3, **trust).stderr
    (shell.folder / "agent.py").write_text(AGENT.replace("hello", "bye"))
    running.wait_for("ready on", 2)
    by_variable = {"AGENTAPP_CLIENT_CERT": str(anna.cert), "AGENTAPP_CLIENT_KEY": str(anna.key)}
    assert shell.call("chat", url, "--query", "hi", **by_variable, **trust).stdout == "bye anna\n"
    assert "is ready" in shell.call("status", url, **by_variable, **trust).stdout
    look = ("top", url, "--json", "--token", "correct-horse-battery")
    assert '"trouble":null' in shell.call(*look, *mine, **trust).stdout
    assert "certificate required" in shell.call(*look, code=3, **trust).stdout
    assert "cannot be read" in shell.call(*look, *mine, code=2, SSL_CERT_FILE="nowhere").stderr
    assert running.stop() == 0
    assert "was refused: it presented none" in running.output
    assert "Traceback" not in running.output


def test_certificates_that_cannot_be_presented(tmp_path: Path, authority: Authority) -> None:
    anna, ben = authority.issue("anna"), authority.issue("ben")
    assert Access("token").ssl_context() is None
    both = tmp_path / "both.pem"
    both.write_bytes(anna.cert.read_bytes() + anna.key.read_bytes())
    assert Access(cert=both).ssl_context() is not None
    with pytest.raises(ConfigurationError, match="--key was given without --cert"):
        Access(key=anna.key).ssl_context()
    for cert, key in ((anna.cert, ben.key), (anna.cert, None), (anna.key, anna.key)):
        with pytest.raises(ConfigurationError, match="cannot be presented: ") as caught:
            Access(cert=cert, key=key).ssl_context()
        assert "must be PEM, and belong to each other" in str(caught.value)
