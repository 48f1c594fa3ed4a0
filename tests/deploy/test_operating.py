"""The unit and the image that the pages describe, without a service manager and without Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from trio_agentapp.deploy.packaging import build_context

from ..e2e.harness import READY, free_port

PAGE = Path(__file__).parents[2] / "docs/how-to/containers-and-systemd.md"
SYSTEMD = shutil.which("systemd-analyze")
PROGRAMS = Path(sys.executable).parent
AGENT = """
import trio
from trio_agentapp import AgentApp

app = AgentApp(app_name="Friday", drain_timeout=20)


@app.query()
async def chat():
    for number in range(6):
        yield f"{number} "
        await trio.sleep(0.3)
"""


@pytest.mark.skipif(SYSTEMD is None, reason="needs systemd-analyze, of Debian's package systemd")
def test_the_documented_unit_is_valid(tmp_path: Path) -> None:
    [unit] = re.findall(r"(?s)```ini\n(\[Unit\].*?)```", PAGE.read_text())
    program = "/srv/friday/.venv/bin/trio-agentapp"
    assert program in unit
    path = tmp_path / "friday.service"
    # The page's user, folder and environment are not here.
    path.write_text(unit.replace(program, sys.executable).replace("User=friday", "User=daemon"))
    checked = subprocess.run([str(SYSTEMD), "verify", str(path)], capture_output=True, text=True, check=False)
    said = [line for line in checked.stderr.splitlines() if "friday" in line]
    assert (checked.returncode, said) == (0, []), checked.stderr
    rated = subprocess.run(
        [str(SYSTEMD), "security", "--offline=yes", "--threshold=25", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout[-300:] + rated.stderr


def namespaces() -> bool:
    """Whether this process may make them."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None or os.getuid() != 0:
        return False
    command = ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


# An interpreter in root's home is made readable for the user of the image, and nothing else of that home.
READABLE = f"""
    mount --bind {sys.base_prefix} /mnt
    mount -t tmpfs -o mode=755 tmpfs /root
    mkdir -p {sys.base_prefix}
    mount --move /mnt {sys.base_prefix}
"""


def test_the_steps_of_the_dockerfile(tmp_path: Path) -> None:
    """PID 1 of its namespace, user 10001, no capabilities, a read-only file system: a drain ends with 0."""
    if not namespaces():
        pytest.skip("needs root, unshare and setpriv, of util-linux")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/agent.py").write_text(AGENT)
    port = free_port()
    context = build_context(f"{tmp_path}/source/agent.py", requirements=["trio"], port=port)
    context.write(tmp_path / "context")
    dockerfile = (tmp_path / "context/Dockerfile").read_text()
    user = re.findall(r"(?m)^USER (\d+):\d+$", dockerfile)[0]
    variables = dict(each.split("=") for each in re.findall(r"(?m)^ENV (.*)$", dockerfile)[0].split())
    command = json.loads(re.findall(r"(?m)^CMD (.*)$", dockerfile)[0])
    inside = f"""
        {READABLE if sys.base_prefix.startswith("/root") else ""}
        mount --bind {tmp_path}/context /srv
        mount -o remount,bind,ro /srv
        mount -o remount,bind,ro /
        mount -t tmpfs tmpfs /tmp
        cd /srv/app
        exec setpriv --reuid {user} --regid {user} --clear-groups --no-new-privs --bounding-set=-all \\
            sh -c 'exec 3>&2; (echo x > /srv/app/new) 2>/dev/null && exit 9; exec "$@"' - {" ".join(command)}
    """
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "sh", "-ec", inside],
            env={"PATH": f"{PROGRAMS}:/usr/sbin:/usr/bin:/sbin:/bin", **variables, "HOST": "127.0.0.1"},
            stdout=file,
            stderr=file,
        )
    try:
        end = time.monotonic() + 30
        while READY.search(log.read_text()) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        status = Path(f"/proc/{child}/status").read_text()
        assert re.search(r"(?m)^NSpid:\s+\d+\s+1$", status), status
        assert re.search(rf"(?m)^Uid:\s+{user}\s+{user}\s", status)
        assert re.search(r"(?m)^CapEff:\s+0+$", status)
        assert re.search(r"(?m)^NoNewPrivs:\s+1$", status)
        body = json.dumps({"input": "hi", "stream": True}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/process", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            # The signal comes in the middle of the answer, which is drained.
            while b'"text":"0 "' not in answer.readline():
                pass
            os.kill(int(child), signal.SIGTERM)
            assert b'"status":"completed"' in answer.read()
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
