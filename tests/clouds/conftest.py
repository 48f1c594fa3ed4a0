"""These tests need the SDKs of Alibaba Cloud: `make test-clouds`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from .cloud import KEY, SECRET, TOKEN, Cloud, serving

collect_ignore_glob = [] if find_spec("alibabacloud_fc20230330") else ["test_*.py"]

SERVICES = ("AGENT_RUN_ENDPOINT", "FC_ENDPOINT", "MODELSTUDIO_ENDPOINT", "OSS_ENDPOINT")


@pytest.fixture(scope="session")
def served() -> Iterator[Cloud]:
    with serving() as cloud:
        yield cloud


@pytest.fixture
def cloud(served: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cloud:
    """An empty cloud, and the variables with which the managers find it. Pauses are short."""
    from trio_agentapp.deploy.alibaba import calls

    served.clear()
    for name in SERVICES:
        monkeypatch.setenv(name, served.url)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", SECRET)
    monkeypatch.setenv("ALIBABA_CLOUD_SECURITY_TOKEN", TOKEN)
    monkeypatch.setenv("OSS_BUCKET_NAME", "code-of-tests")
    monkeypatch.setenv("AGENTAPP_HOME", str(tmp_path / "home"))
    for name in ("FIRST_LOOK", "LONGEST_LOOK", "FIRST_PAUSE"):
        monkeypatch.setattr(calls, name, 0.01)
    return served


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small wheel with a starter, and without requirements."""
    from trio_agentapp.deploy.wheels import write_wheel

    files = {
        "deploy_starter/main.py": b"",
        "agentapp_small-1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: agentapp_small\nVersion: 1\n",
    }
    name, content = write_wheel("agentapp_small", "1", files)
    path = tmp_path_factory.mktemp("wheel") / name
    path.write_bytes(content)
    return path


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the wheel is made once."""
    return tmp_path_factory.mktemp("builds")
