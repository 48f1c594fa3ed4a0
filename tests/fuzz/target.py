"""The fuzzed app as a process, and what none of its answers may be."""

from __future__ import annotations

import http.client
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

APP = Path(__file__).parent / "app.py"
A2A_APP = Path(__file__).parent / "a2a_app.py"
GUARDED_APP = Path(__file__).parent / "guarded_app.py"
ANNA_TOKEN = secrets.token_hex(16)
"""Of the user of the guarded app that is attacked."""
REFUSALS = ('"logger":"trio_agentapp.admin"', '"logger":"trio_agentapp.web.hosts"')
"""Loggers whose warnings are about what an attacker asks for."""
READY = re.compile(r"ready on (http://127\.0\.0\.1:\d+)")
TIMEOUT = 20.0
"""Seconds for one answer. A server that takes longer is reported as hanging."""

OURS = re.compile(
    rb"trio_agentapp|Traceback|site-packages|\.py\b|orjson|cattrs|msgspec|quart|werkzeug|SessionKey"
    rb"|DecodeError|TypeError|ValueError|KeyError|<class|NoneType|pydantic\.dev"
)


class Target:
    """A running app."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def complaints(self) -> list[str]:
        """What its log has beyond the ordinary."""
        lines = self._log.read_text().splitlines()
        ordinary = ('"level":"info"', *REFUSALS)
        return [
            line[:2000] for line in lines if not READY.search(line) and not any(part in line for part in ordinary)
        ]

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


@contextmanager
def running(folder: Path, app: Path = APP) -> Iterator[Target]:
    log = folder / "log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENTAPP_")}
    environment |= {"PORT": "0", "AGENTAPP_LOG_FORMAT": "json"}
    environment |= {"ANNA_TOKEN": ANNA_TOKEN, "ADMIN_TOKEN": secrets.token_hex(16)}
    # All requests come from one address.
    environment |= {"AGENTAPP_REQUESTS_PER_SECOND": "0", "AGENTAPP_MAX_RUNS_PER_USER": "10000"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(app)],
            stdout=file,
            stderr=file,
            env=environment,
        )
    try:
        end = time.monotonic() + 30
        while READY.search(log.read_text()) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        found = READY.search(log.read_text())
        assert found is not None
        yield Target(found[1], log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


def fault_of(status: int, body: bytes, echoes: bool, sent: str = "") -> str | None:
    """What is wrong with an answer; `echoes`: it may hold whatever was sent. `sent`: words that it may repeat."""
    if status >= 500:
        return f"answered with {status}: {body[:500]!r}"
    if not echoes and (found := OURS.search(body)) is not None and found[0].decode() not in sent:
        return f"tells of {found[0]!r}: {body[:500]!r}"
    return None
