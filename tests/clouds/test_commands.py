"""The command line against the recording cloud."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from trio_agentapp.cli import program

from .cloud import SECRET, TOKEN, Cloud

VALUE = "a-value-of-the-environment"


@pytest.fixture
def shell(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(program, words)
    assert done.exit_code == code, f"{done.stderr}{done.exception!r}"
    for secret in (SECRET, TOKEN, VALUE):
        assert secret not in done.stdout + done.stderr
    return done


def test_agentrun(cloud: Cloud, shell: Path, wheel: Path) -> None:
    cloud.looks = 0
    (shell / "c.yaml").write_text("name: friday\nregion: cn-shanghai\ncpu: 1\nmemory: 1\nenvironment: {A: '1'}\n")
    done = call("deploy", "agentrun", str(wheel), "-c", "c.yaml", "-E", f"B={VALUE}", "--memory", "4096")
    assert done.stdout == "agentrun:cn-shanghai/ar-1\n"
    assert "Uploading " in done.stderr
    assert (
        "is ready on https://ar-1.example.com (trio-agentapp stop agentrun:cn-shanghai/ar-1 stops it)"
        in done.stderr
    )
    [created] = cloud.requests_of("POST .*/runtimes")
    sent = created.json
    assert (sent["agentRuntimeName"], sent["cpu"], sent["memory"]) == ("friday", 1.0, 4096)
    assert sent["environmentVariables"] == {"A": "1", "B": VALUE}
    target = done.stdout.strip()
    seen = json.loads(call("status", target, "--json").stdout)
    assert (seen["deploy_id"], seen["state"]) == ("ar-1", "ready")
    [listed] = json.loads(call("list", "--platform", "agentrun", "--json").stdout)
    assert listed["app_name"] == "friday"
    assert "AGENT_RUN_LOG_PROJECT" in call("logs", target, code=1).stderr
    assert "by its sessions" in call("scale", target, "2", code=1).stderr
    assert "leave --timeout out" in call("stop", target, "--timeout", "1", code=2).stderr
    assert call("stop", target).stderr == "ar-1 (friday) is stopped\n"
    assert cloud.runtimes == {}
    assert "it does not exist" in call("stop", target, code=1).stderr


def test_fc(cloud: Cloud, shell: Path, wheel: Path) -> None:
    cloud.looks = 0
    done = call("deploy", "fc", str(wheel), "--name", "friday", "--anonymous", "--publish", "--json")
    seen = json.loads(done.stdout)
    assert (seen["function_name"], seen["url"], seen["version"]) == ("friday", "https://friday.fcapp.run", "3")
    assert call("status", "fc:friday").stdout.startswith("friday (friday) at https://friday.fcapp.run is ready")
    call("stop", "fc:cn-hangzhou/friday")
    assert cloud.functions == {}


def test_modelstudio(cloud: Cloud, shell: Path, wheel: Path) -> None:
    done = call("deploy", "modelstudio", str(wheel), "--agent-id", "agent-1", "--desc", "helps", "--no-telemetry")
    assert done.stdout == "modelstudio:deploy-1\n"
    assert cloud.requests[-1].json.items() >= {"agentId": "agent-1", "agentDesc": "helps"}.items()
    assert "no call that deletes deploy-1" in call("stop", "modelstudio:deploy-1", code=1).stderr
    assert "no call that lists" in call("list", "-p", "modelstudio", code=1).stderr


def test_mistakes(cloud: Cloud, shell: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shell / "c.json").write_text('{"colour": 1}')
    assert "unknown key 'colour'" in call("deploy", "fc", str(wheel), "-c", "c.json", code=2).stderr
    assert "there is no wheel no.whl" in call("deploy", "fc", "no.whl", code=2).stderr
    assert "memory must be more than 0" in call("deploy", "fc", str(wheel), "--memory", "-1", code=2).stderr
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "another-secret")
    done = call("deploy", "agentrun", str(wheel), code=1)
    assert "AgentRun refuses the access key (SignatureDoesNotMatch" in done.stderr
    assert "another-secret" not in done.stderr
    monkeypatch.delenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
    assert "ALIBABA_CLOUD_ACCESS_KEY_SECRET is not set" in call("status", "agentrun:ar-1", code=2).stderr
    made = call("deploy", "agentrun", str(wheel), "--skip-upload")
    assert Path(made.stdout.strip()).suffix == ".zip"


def test_ctrl_c_deletes_what_was_made(cloud: Cloud, shell: Path, wheel: Path) -> None:
    cloud.looks = 1_000_000
    words = ["deploy", "agentrun", str(wheel), "-E", f"B={VALUE}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_agentapp", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        cloud.wait_for("GET .*/runtimes/ar-1$", 60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, ""), err
    assert "Deleting the agent runtime ar-1, which is not ready" in err
    assert "Traceback" not in err
    assert VALUE not in err
    assert cloud.lines[-1] == "DELETE /2025-09-10/agents/runtimes/ar-1"
    # The package and the upload are kept: the next attempt begins after them.
    cloud.looks = 0
    done = call(*words)
    assert "is in the bucket code-of-tests already" in done.stderr
    assert len(cloud.requests_of(r"PUT /code-of-tests/.*\.zip")) == 1


@pytest.mark.parametrize(
    ("target", "module"),
    [
        ("agentrun", "alibabacloud_agentrun20250910.models"),
        ("fc", "alibabacloud_oss_v2"),
        ("modelstudio", "darabonba.runtime"),
    ],
)
def test_an_extra_that_is_missing(shell: Path, wheel: Path, monkeypatch: Any, target: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = call("deploy", target, str(wheel), code=2)
    assert f"pip install 'trio-agentapp[{target}]'" in done.stderr
