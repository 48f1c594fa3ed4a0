"""What is uploaded: the wheel of an app, and the archive for the service's Python."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import httpx
import pytest
import trio

from trio_agentapp.deploy.alibaba.archive import PYTHON, archive_of
from trio_agentapp.deploy.alibaba.bundle import builds_folder, bundle_of, default_name
from trio_agentapp.errors import DeployError

AGENT = """
import os

from trio_agentapp import AgentApp

import rhymes

app = AgentApp(app_name="Friday")


@app.query()
async def answer(msgs):
    yield f"{rhymes.WORD} {os.environ['MODEL']} {os.getcwd()}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "serve.py").write_text(AGENT)
    (folder / "rhymes.py").write_text("WORD = 'moon'\n")
    (folder / ".env").write_text("SECRET=x\n")
    return folder


@pytest.fixture(scope="module")
def archive(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    builds = tmp_path_factory.mktemp("builds")
    name, content = bundle_of(str(folder / "serve.py"), name="friday", port=8090, environment={"MODEL": "small"})
    (builds / name).write_bytes(content)
    return trio.run(archive_of, builds / name, builds)


def test_the_wheel(folder: Path, tmp_path: Path) -> None:
    source = str(folder / "serve.py")
    file_name, content = bundle_of(source, name="My-Friday", port=8080)
    assert bundle_of(source, name="My-Friday", port=8080) == (file_name, content)
    assert bundle_of(source, name="My-Friday", port=8081)[0] != file_name
    path = tmp_path / file_name
    path.write_bytes(content)
    names = zipfile.ZipFile(path).namelist()
    assert {name for name in names if name.startswith("deploy_starter/user_bundle")} == {
        "deploy_starter/user_bundle/app/serve.py",
        "deploy_starter/user_bundle/app/rhymes.py",
    }
    # pip takes it, and the version of the package in it is found.
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(tmp_path / "site"),
        str(path),
    ]
    subprocess.run(command, check=True)
    found = {each.name: each for each in metadata.distributions(path=[str(tmp_path / "site")])}
    assert set(found) == {"agentapp_my_friday", "trio-agentapp"}
    assert found["trio-agentapp"].version == metadata.version("trio-agentapp")
    requires = found["agentapp_my_friday"].requires or []
    assert f"trio=={metadata.version('trio')}" in requires
    assert all("==" in line for line in requires)


def test_a_package_holds_no_others(tmp_path: Path) -> None:
    """The folder for packages may be inside the project."""
    (tmp_path / "serve.py").write_text("from trio_agentapp import AgentApp\napp = AgentApp()\n")
    first = bundle_of(str(tmp_path / "serve.py"), name="friday", port=1)
    (builds_folder(tmp_path / "builds") / first[0]).write_bytes(first[1])
    assert bundle_of(str(tmp_path / "serve.py"), name="friday", port=1) == first


def test_old_packages_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPP_HOME", str(tmp_path))
    folder = builds_folder(None)
    for name in ("agentapp_old.zip", "agentapp_new.zip", "of-others"):
        (folder / name).touch()
    for name in ("agentapp_old.zip", "of-others"):
        os.utime(folder / name, (0, 0))
    assert {path.name for path in builds_folder(None).iterdir()} == {
        "agentapp_new.zip",
        "of-others",
        "CACHEDIR.TAG",
    }


def test_the_archive_is_for_the_python_of_the_service(archive: Path, folder: Path) -> None:
    names = zipfile.ZipFile(archive).namelist()
    compiled = [name for name in names if name.endswith(".so")]
    assert any(f"cpython-{PYTHON.replace('.', '')}-x86_64-linux-gnu" in name for name in compiled)
    assert not any(f"cpython-{sys.version_info.major}{sys.version_info.minor}-" in name for name in compiled) or (
        f"{sys.version_info.major}.{sys.version_info.minor}" == PYTHON
    )
    assert "deploy_starter/main.py" in names
    assert not [name for name in names if name.endswith((".pyc", "direct_url.json"))]
    # One that is there is used again.
    [wheel] = archive.parent.glob("*.whl")
    before = archive.stat().st_mtime_ns
    assert trio.run(archive_of, wheel, archive.parent) == archive
    assert archive.stat().st_mtime_ns == before


def python() -> str | None:
    """The Python of the service, if there is one here."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for found in (*versions.glob(f"{PYTHON}*/bin/python3"), shutil.which(f"python{PYTHON}")):
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return str(found)
    return None


@contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(python() is None, reason=f"there is no Python {PYTHON} here")
def test_the_starter_serves_the_app(archive: Path, tmp_path: Path) -> None:
    """As the service does it: from another current folder, and with no packages but those of the archive."""
    zipfile.ZipFile(archive).extractall(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    starter = tmp_path / "deploy_starter/main.py"
    settings = tmp_path / "deploy_starter/start.json"
    settings.write_text(settings.read_text().replace('"port": 8090', f'"port": {port}'))
    # Variables of the service take precedence over those in the wheel; its port is the one that was agreed on.
    environment = {"PATH": os.defpath, "HOME": str(tmp_path), "MODEL": "large", "PORT": "1", "HOST": "10.0.0.1"}
    with started([str(python()), "-S", str(starter)], environment) as process:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            assert process.poll() is None, process.communicate()[0].decode()
            try:
                httpx.get(f"{url}/readiness", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                trio.run(trio.sleep, 0.1)
        body = {"input": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}], "stream": False}
        answer = httpx.post(f"{url}/process", json=body, trust_env=False)
        assert f"moon large {tmp_path / 'deploy_starter/user_bundle/app'}" in answer.text
        # The app itself gets the signal.
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)


def test_a_package_without_a_wheel(folder: Path, tmp_path: Path) -> None:
    name, content = bundle_of(
        str(folder / "serve.py"), name="friday", port=1, requirements=["no-such-package-of-tests==1"]
    )
    (tmp_path / name).write_bytes(content)
    empty = tmp_path / "index"
    empty.mkdir()
    with pytest.raises(DeployError, match=rf"for Python {PYTHON} on Linux x86-64, where all need wheels: ERROR: "):
        trio.run(lambda: archive_of(tmp_path / name, tmp_path, index_url=empty.as_uri()))
    assert not list(tmp_path.glob("*.zip"))


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    from trio_agentapp.deploy.wheels import write_wheel

    files = {"other-1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: other\nVersion: 1\n"}
    name, content = write_wheel("other", "1", files)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DeployError, match=r"has no deploy_starter/main\.py"):
        trio.run(archive_of, tmp_path / name, tmp_path)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("friday/app.py", "friday"),
        ("My Agents/weather_bot.py:app", "weather-bot"),
        ("3d/main.py", "agent-3d"),
        ("package.module", "package"),
    ],
)
def test_the_default_name(source: str, name: str) -> None:
    assert default_name(source) == name
