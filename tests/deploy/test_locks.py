"""Two processes and one record."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trio_agentapp.deploy.processes import Identity
from trio_agentapp.deploy.records import Record, Records
from trio_agentapp.errors import DeployError

HOLDER = """
import sys, time
from trio_agentapp.deploy.records import Records
with Records(sys.argv[1]).only_one("k8s friday", "deploys friday"):
    print("held", flush=True)
    time.sleep(600)
"""
CHANGER = """
import sys
from trio_agentapp.deploy.records import Records
print("begun", flush=True)
sys.stdin.readline()
for number in range(200):
    Records(sys.argv[1]).update("0123abcd", workers=number)
"""


def started(program: str, home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, str(home)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


@pytest.fixture
def records(tmp_path: Path) -> Records:
    records = Records(tmp_path / "home")
    records.new_id()
    return records


@pytest.fixture
def record(records: Records) -> Record:
    made = Record(
        deploy_id="0123abcd",
        entrypoint="agent.py",
        url="http://127.0.0.1:1",
        host="127.0.0.1",
        port=1,
        log=str(records.log("0123abcd")),
        started_at=time.time(),
        launcher=Identity.own(),
        sys_path=[],
    )
    records.write(made)
    return made


def test_a_lock_ends_with_its_process(records: Records) -> None:
    with started(HOLDER, records.folder.parent) as process:
        with pytest.raises(DeployError) as caught, records.only_one("k8s friday", "deploys friday"):
            pass
        assert str(caught.value) == (
            f"process {process.pid} deploys friday at this moment; wait for its end, or end it"
        )
        with records.only_one("k8s other", "deploys other"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with records.only_one("k8s friday", "deploys friday"), pytest.raises(DeployError):
        records.only_one("k8s friday", "deploys friday").__enter__()


def test_no_change_of_a_record_is_lost(records: Records, record: Record) -> None:
    with started(CHANGER, records.folder.parent) as process:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        for number in range(200):
            assert records.update("0123abcd", app_name=str(number)).app_name == str(number)
        assert process.wait() == 0
    assert (records.get("0123abcd").workers, records.get("0123abcd").app_name) == (199, "199")


def test_a_record_that_was_removed_does_not_come_back(records: Records, record: Record) -> None:
    records.forget("0123abcd")
    with pytest.raises(DeployError, match="there is no deployment '0123abcd'"):
        records.update("0123abcd", app_name="late")
    assert list(records) == []


def test_where_nothing_can_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with Records(tmp_path / "file").only_one("k8s friday", "deploys friday"):
        assert "do not deploy twice at once" in caplog.text
